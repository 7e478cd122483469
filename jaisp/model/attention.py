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
        side, reach = BLOCK + 2 * self.reach, self.reach
        y = self.norm(x.permute(0, 2, 3, 1))
        query = functional.pad(self.query(y), (0, 0, 0, right, 0, down))
        around = functional.pad(
            self.key_value(y), (0, 0, reach, right + reach, reach, down + reach)
        )
        query = query.view(samples, rows, BLOCK, columns, BLOCK, self.heads, -1)
        query = query.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2)
        around = around.unfold(1, side, BLOCK).unfold(2, side, BLOCK)
        around = around.reshape(samples, rows, columns, 2, self.heads, -1, side * side)
        key, value = around.permute(3, 0, 1, 2, 4, 6, 5).flatten(1, 3)
        inner, outer = (torch.arange(n, device=x.device) for n in (BLOCK, side))
        found = functional.scaled_dot_product_attention(
            self._turned(query, inner),
            self._turned(key, outer - reach),
            value,
            attn_mask=_seen(height, length, reach, x.device).repeat(samples, 1, 1, 1),
        )
        found = found.view(samples, rows, columns, self.heads, BLOCK, BLOCK, -1)
        found = found.permute(0, 1, 4, 2, 5, 3, 6).reshape(
            samples, height + down, length + right, width
        )
        return x + (self.out(found[:, :height, :length]) * self.scale).permute(0, 3, 1, 2)

    def _turned(self, vectors: Tensor, place: Tensor) -> Tensor:
        """`vectors` [block, head, token, entry] of a square of tokens, whose rows and columns are
        both at `place`; pairs of entries are rotated by it."""
        row, column = place.repeat_interleave(len(place)), place.repeat(len(place))
        angle = torch.cat([row[:, None] * self.turns, column[:, None] * self.turns], dim=1)
        cosine, sine = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
        first, second = vectors.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def _seen(height: int, length: int, reach: int, device: torch.device) -> Tensor:
    """Which tokens of its surroundings each token of a block sees, [block, 1, token, around]:
    those within reach, and within the image."""
    along = [_seen_along(size, reach, device) for size in (height, length)]
    both = torch.einsum("rqk,cpl->rcqpkl", *(seen.float() for seen in along)) > 0
    return both.flatten(0, 1).flatten(1, 2).flatten(2, 3)[:, None]


def _seen_along(size: int, reach: int, device: torch.device) -> Tensor:
    """Along one axis, [block, token, around]. Tokens that fill up the last block see themselves."""
    token = torch.arange(BLOCK, device=device)
    around = torch.arange(BLOCK + 2 * reach, device=device) - reach
    near = (token[:, None] - around).abs() <= reach
    first = torch.arange(0, size, BLOCK, device=device)[:, None]
    inside = (first + around >= 0) & (first + around < size)
    filling = (first + token >= size)[:, :, None] & (token[:, None] == around)
    return (near & inside[:, None]) | filling
