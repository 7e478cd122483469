"""One survey's encoder: pixels in, tokens on the shared grid out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jaisp.model.blocks import BandStem, ChannelNorm, ResidualBlock, TokenBlock

# Positions between pixels and tokens stand about this far apart: a Rubin PSF is resolved, and
# Euclid's 0.1″ pixels, of which a token has 256, cost one strided convolution.
FINE_ARCSEC = 0.4


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

    def features(self, inputs: Tensor, bands: Tensor) -> dict[str, Tensor]:
        """Features by scale: `fine` (between pixels and tokens), `token`, `shared`."""
        fine = self.fine(torch.nn.functional.gelu(self.stem(inputs, bands)))
        token = self.blocks(self.gather(fine))
        return {"fine": fine, "token": token, "shared": self.project(token)}


def fine_stride(pixels_per_token: int, grid_arcsec: float) -> int:
    """Pixels a position between pixels and tokens: the largest divisor of a token's pixels that
    keeps positions within FINE_ARCSEC of each other."""
    fitting = [
        s
        for s in range(1, pixels_per_token + 1)
        if pixels_per_token % s == 0 and s * grid_arcsec <= FINE_ARCSEC * 1.01
    ]
    return max(fitting, default=1)
