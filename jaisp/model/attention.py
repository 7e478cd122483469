"""Attention among neighbouring tokens, which know how far apart they lie and not where.

Every token attends to the square of tokens within a reach, whatever window it is computed in:
tokens are taken block by block, each block with its surroundings, and a mask leaves every token
its own square. Positions enter by rotations of queries and keys (Su et al. 2021, arXiv:2104.09864)
in arcsec along both axes, so that only differences count.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 8  # tokens along a side that are taken together
SHORTEST, LONGEST = 1.6, 25.6  # arcsec: wavelengths of the rotations


class LocalAttention(nn.Module):
    """Multi-head attention of each token to those up to `reach` tokens away, added to its input."""

    def __init__(self, width: int, heads: int, reach: int, token_arcsec: float) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm = nn.LayerNorm(width, eps=1e-3)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        waves = torch.logspace(math.log10(SHORTEST), math.log10(LONGEST), width // heads // 4)
        self.turns = nn.Buffer(2 * math.pi * token_arcsec / waves, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [sample, channel, row, column], and so is the result."""
        samples, width, height, length = x.shape
        down, right = -height % BLOCK, -length % BLOCK
        rows, columns = (height + down) // BLOCK, (length + right) // BLOCK
        y = self.norm(x.permute(0, 2, 3, 1))
        beyond = (0, 0, 0, right, 0, down)
        query = functional.pad(self._turned(self.query(y)), beyond)
        query = query.view(samples, rows, BLOCK, columns, BLOCK, self.heads, -1)
        query = query.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2)
        key, value = self.key_value(y).chunk(2, dim=-1)
        found = functional.scaled_dot_product_attention(
            query,
            self._around(functional.pad(self._turned(key), beyond)),
            self._around(functional.pad(value, beyond)),
            attn_mask=_seen(height, length, self.reach, x.device).repeat(samples, 1, 1, 1),
        )
        found = found.view(samples, rows, columns, self.heads, BLOCK, BLOCK, -1)
        found = found.permute(0, 1, 4, 2, 5, 3, 6).reshape(
            samples, height + down, length + right, width
        )
        return x + (self.out(found[:, :height, :length]) * self.scale).permute(0, 3, 1, 2)

    def _around(self, x: Tensor) -> Tensor:
        """What lies around every block of `x` [sample, row, column, entry], [block, head, token,
        entry of a head]."""
        x = _windows(_windows(x, 1, self.reach), 3, self.reach).unflatten(-1, (self.heads, -1))
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2)

    def _turned(self, x: Tensor) -> Tensor:
        """`x` [sample, row, column, entry], whose pairs of entries of a head are rotated by where
        they are. Angles are reduced in float64: of many turns, float32 holds few decimals."""
        turns = self.turns.double()
        height, length = x.shape[1:3]
        row = torch.arange(height, device=x.device)[:, None, None] * turns
        column = torch.arange(length, device=x.device)[:, None] * turns
        angle = torch.cat(torch.broadcast_tensors(row, column), dim=-1)[:, :, None]
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.unflatten(-1, (self.heads, 2, -1)).unbind(-2)
        pair = first * cosine - second * sine, first * sine + second * cosine
        return torch.stack(pair, dim=-2).flatten(-3)


def _windows(x: Tensor, axis: int, reach: int) -> Tensor:
    """Blocks along an axis of `x` with `reach` tokens around each, [.., block, token, ..]; a block
    that is all there is has nothing around it.

    Parts are put together, since the gradient of `Tensor.unfold` costs several times as much.
    """
    size = x.shape[axis]
    if size == BLOCK:
        return x.unflatten(axis, (1, BLOCK))
    blocks, more = size // BLOCK, -(-2 * reach // BLOCK)
    margins = [0, 0] * (x.ndim - 1 - axis) + [reach, more * BLOCK - reach]
    parts = functional.pad(x, margins).unflatten(axis, (blocks + more, BLOCK))
    around = []
    for n in range(more + 1):
        width = min(BLOCK, BLOCK + 2 * reach - n * BLOCK)
        around.append(parts.narrow(axis, n, blocks).narrow(axis + 1, 0, width))
    return torch.cat(around, dim=axis + 1)


def _seen(height: int, length: int, reach: int, device: torch.device) -> Tensor:
    """Which tokens of its surroundings each token of a block sees, [block, 1, token, around]:
    those within reach, and within the image."""
    along = [_seen_along(size, reach, device) for size in (height, length)]
    both = torch.einsum("rqk,cpl->rcqpkl", *(seen.float() for seen in along)) > 0
    return both.flatten(0, 1).flatten(1, 2).flatten(2, 3)[:, None]


def _seen_along(size: int, reach: int, device: torch.device) -> Tensor:
    """Along one axis, [block, token, around]: `reach` tokens beyond a block on both sides, unless
    it is the only one. Tokens that fill up the last block see themselves."""
    token = torch.arange(BLOCK, device=device)
    margin = reach if size > BLOCK else 0
    around = torch.arange(-margin, BLOCK + margin, device=device)
    near = (token[:, None] - around).abs() <= reach
    first = torch.arange(0, size, BLOCK, device=device)[:, None]
    inside = (first + around >= 0) & (first + around < size)
    filling = (first + token >= size)[:, :, None] & (token[:, None] == around)
    return (near & inside[:, None]) | filling
