"""One survey's encoder: pixels in, tokens on the shared grid out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jaisp.model.blocks import BandStem, ChannelNorm, ResidualBlock, TokenBlock

# Positions between pixels and tokens stand about this far apart: a Rubin PSF is resolved, and
# Euclid's 0.1″ pixels, of which a token has 256, cost one strided convolution.
FINE_ARCSEC = 0.4

# Tokens above, below, left and right of something.
Sides = tuple[int, int, int, int]
NOTHING_BEYOND: Sides = (0, 0, 0, 0)


@dataclass(frozen=True)
class Size:
    """Widths and depths of an encoder."""

    vector: int
    fine_width: int
    fine_blocks: int
    width: int
    blocks: int
    expansion: int


SIZES = {
    "tiny": Size(vector=4, fine_width=8, fine_blocks=1, width=16, blocks=1, expansion=2),
    "small": Size(vector=16, fine_width=24, fine_blocks=1, width=128, blocks=3, expansion=2),
    "base": Size(vector=32, fine_width=48, fine_blocks=2, width=256, blocks=4, expansion=2),
}


class Encoder(nn.Module):
    """Stem over bands, residual convolutions between pixels and tokens, blocks on tokens.

    Calling it with `inputs` [sample, band, 3, y, x] and the numbers of the bands gives tokens
    [sample, dimension, row, column]; `features` also gives what lies before.
    """

    def __init__(
        self, bands: int, pixels_per_token: int, grid_arcsec: float, size: Size, dimensions: int
    ) -> None:
        super().__init__()
        stride = fine_stride(pixels_per_token, grid_arcsec)
        per_token = pixels_per_token // stride
        self.stem = BandStem(bands, size.vector, size.fine_width, stride)
        self.fine = nn.Sequential(
            *(ResidualBlock(size.fine_width) for _ in range(size.fine_blocks))
        )
        self.gather = nn.Sequential(
            ChannelNorm(size.fine_width),
            nn.Conv2d(size.fine_width, size.width, per_token, stride=per_token),
        )
        self.stride, self.per_token = stride, per_token
        # How far a pixel reaches, in positions between pixels and tokens.
        self.fine_reach = 1 + size.fine_blocks * ResidualBlock.REACH
        self.blocks = nn.Sequential(
            *(TokenBlock(size.width, size.expansion) for _ in range(size.blocks))
        )
        self.project = nn.Sequential(
            ChannelNorm(size.width),
            nn.Conv2d(size.width, 2 * size.width, 1),
            nn.GELU(),
            nn.Conv2d(2 * size.width, dimensions, 1),
        )
        fine_arcsec = stride * grid_arcsec
        self.reach_arcsec = (
            self.stem.margin * grid_arcsec
            + size.fine_blocks * ResidualBlock.REACH * fine_arcsec
            + size.blocks * TokenBlock.REACH * pixels_per_token * grid_arcsec
        )

    def forward(self, inputs: Tensor, bands: Tensor) -> Tensor:
        """Tokens [sample, dimension, row, column]."""
        return self.features(inputs, bands)["shared"]

    def features(
        self, inputs: Tensor, bands: Tensor, beyond: Sides = NOTHING_BEYOND
    ) -> dict[str, Tensor]:
        """Features by scale: `fine` (between pixels and tokens), `token`, `shared`.

        beyond: tokens above, below, left and right of the inputs where every pixel is missing; the
        features are of these, too. Pixels next to them must be missing for `fine_reach` positions
        twice over.
        """
        fine = self._fine(inputs, bands)
        if any(beyond):
            fine = self._with_missing(fine, bands, beyond)
        token = self.blocks(self.gather(fine))
        return {"fine": fine, "token": token, "shared": self.project(token)}

    def covered(self, flux: Tensor) -> tuple[tuple[slice, ...], Sides]:
        """The pixels that an encoder needs to see of `flux` [sample, band, y, x], NaN where
        missing, and how many tokens lie beyond them (see `features`)."""
        there = torch.isfinite(flux).flatten(0, 1).any(dim=0)
        per_token, n = self.per_token, self.per_token * self.stride
        margin = -(-2 * self.fine_reach // per_token)
        slices, beyond = [], []
        for known in (there.any(dim=1), there.any(dim=0)):
            length = len(known) // n
            tokens = torch.nonzero(known.view(length, n).any(dim=1)).flatten().tolist() or [0]
            first, last = max(tokens[0] - margin, 0), min(tokens[-1] + 1 + margin, length)
            if length * per_token <= 2 * self.fine_reach:
                first, last = 0, length
            slices.append(slice(first * n, last * n))
            beyond += [first, length - last]
        return (slice(None), slice(None), *slices), (beyond[0], beyond[1], beyond[2], beyond[3])

    def _fine(self, inputs: Tensor, bands: Tensor) -> Tensor:
        return self.fine(torch.nn.functional.gelu(self.stem(inputs, bands)))

    def _with_missing(self, fine: Tensor, bands: Tensor, beyond: Sides) -> Tensor:
        """Between pixels and tokens, missing sky is the same everywhere but at the window's edge:
        what a small window of it gives stands for all of it."""
        edge = self.fine_reach
        small = (2 * edge + 1) * self.stride
        missing = self._fine(fine.new_zeros(1, len(bands), BandStem.INPUTS, small, small), bands)
        top, bottom, left, right = (tokens * self.per_token for tokens in beyond)
        height, width = fine.shape[2] + top + bottom, fine.shape[3] + left + right
        rows, columns = (_stretched(length, edge, fine.device) for length in (height, width))
        whole = missing[:, :, rows[:, None], columns].repeat(len(fine), 1, 1, 1)
        # Along a side beyond which sky was left out, convolutions saw an edge that isn't there.
        inner = [edge if side else 0 for side in beyond]
        y = slice(inner[0], fine.shape[2] - inner[1])
        x = slice(inner[2], fine.shape[3] - inner[3])
        whole[:, :, top + y.start : top + y.stop, left + x.start : left + x.stop] = fine[:, :, y, x]
        return whole


def _stretched(length: int, edge: int, device: torch.device) -> Tensor:
    """Places in a window of 2 · edge + 1 positions that those of a longer one are like."""
    places = torch.arange(length, device=device)
    from_end = places - length + 2 * edge + 1
    return torch.where(places < length - edge, places.clamp(max=edge), from_end)


def fine_stride(pixels_per_token: int, grid_arcsec: float) -> int:
    """Pixels a position between pixels and tokens: the largest divisor of a token's pixels that
    keeps positions within FINE_ARCSEC of each other."""
    fitting = [
        s
        for s in range(1, pixels_per_token + 1)
        if pixels_per_token % s == 0 and s * grid_arcsec <= FINE_ARCSEC * 1.01
    ]
    return max(fitting, default=1)
