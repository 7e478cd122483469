"""One survey's encoder: pixels in, tokens on the shared grid out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaisp.model.attention import LocalAttention
from jaisp.model.blocks import BandStem, ChannelNorm, ResidualBlock, TokenBlock, grid_strides
from jaisp.model.moments import Moments

COARSEST_ARCSEC = 0.4  # of the grids between pixels and tokens

# Tokens above, below, left and right of something.
Sides = tuple[int, int, int, int]
NOTHING_BEYOND: Sides = (0, 0, 0, 0)


@dataclass(frozen=True)
class Size:
    """Widths and depths of an encoder.

    vector: of a band. finest_arcsec: the first grid has positions at most so far apart. density:
    channels per arcsec between positions of a grid, so that a grid half as fine has twice as many.
    residual: blocks a grid. moments_arcsec, maps: likewise the finest grid of the moments that
    tokens are given, and of how many maps. width, blocks: of the tokens.
    attention_arcsec: how far a token attends.
    """

    vector: int
    finest_arcsec: float
    density: float
    residual: int
    moments_arcsec: float
    maps: int
    width: int
    blocks: int
    heads: int
    expansion: int = 2
    attention_arcsec: float = 3.2

    def channels(self, grid_arcsec: float) -> int:
        """Channels of a grid between pixels and tokens, a multiple of eight."""
        return min(self.width, max(8, 8 * round(self.density * grid_arcsec / 8)))


SIZES = {
    "tiny": Size(
        16, 0.4, 60.0, residual=1, moments_arcsec=0.2, maps=4, width=128, blocks=2, heads=4
    ),
    "small": Size(
        16, 0.2, 160.0, residual=1, moments_arcsec=0.1, maps=8, width=128, blocks=2, heads=4
    ),
    "base": Size(
        32,
        0.1,
        320.0,
        residual=2,
        moments_arcsec=0.1,
        maps=16,
        width=384,
        blocks=4,
        heads=6,
        expansion=4,
    ),
}


class Encoder(nn.Module):
    """Two ways from pixels to tokens, what is there and where it is, and a trunk on tokens.

    What: a stem over bands and grids of residual convolutions, each half as fine as the one before
    with about twice the channels, and from the last of them tokens. Where: moments of the maps in
    which sources stand out. The trunk are convolutions and attention among neighbouring tokens; the
    moments also go past it, so that a position stays as linear in a token as it was found.

    Calling it with `inputs` [sample, band, 3, y, x] and the numbers of the bands gives tokens
    [sample, dimension, row, column]; `features` also gives what lies before.
    """

    def __init__(
        self, bands: int, pixels_per_token: int, grid_arcsec: float, size: Size, dimensions: int
    ) -> None:
        super().__init__()
        self.pixels_per_token = pixels_per_token
        token_arcsec = pixels_per_token * grid_arcsec
        strides = grid_strides(pixels_per_token, grid_arcsec, size.finest_arcsec, COARSEST_ARCSEC)
        channels = [size.channels(stride * grid_arcsec) for stride in strides]

        self.stem = BandStem(bands, size.vector, channels[0], strides[0])
        self.grids = nn.Sequential()
        pixels = self.stem.margin  # how far one reaches
        for number, stride in enumerate(strides):
            if number:
                finer = strides[number - 1]
                self.grids.append(_coarser(channels[number - 1], channels[number], stride // finer))
                pixels += stride - finer
            for _ in range(size.residual):
                self.grids.append(ResidualBlock(channels[number]))
                pixels += ResidualBlock.REACH * stride
        self.gather = _coarser(channels[-1], size.width, pixels_per_token // strides[-1])
        self.moments = Moments(
            bands, pixels_per_token, grid_arcsec, size.moments_arcsec, size.maps, size.width
        )
        # Beyond a token, in tokens.
        pixels = max(pixels, self.moments.reach)
        self.pixel_reach = math.ceil(pixels / pixels_per_token)

        reach = max(1, round(size.attention_arcsec / token_arcsec))
        self.blocks = nn.Sequential()
        for number in range(size.blocks):
            self.blocks.append(TokenBlock(size.width, size.expansion))
            if number % 2:
                self.blocks.append(LocalAttention(size.width, size.heads, reach, token_arcsec))
        self.project = nn.Sequential(
            ChannelNorm(size.width),
            nn.Conv2d(size.width, 2 * size.width, 1),
            nn.GELU(),
            nn.Conv2d(2 * size.width, dimensions, 1),
        )
        self.past = nn.Conv2d(self.moments.out.in_channels, dimensions, 1)
        attended = size.blocks // 2 * reach
        self.reach_arcsec = (
            pixels * grid_arcsec + (size.blocks * TokenBlock.REACH + attended) * token_arcsec
        )

    def forward(self, inputs: Tensor, bands: Tensor) -> Tensor:
        """Tokens [sample, dimension, row, column]."""
        return self.features(inputs, bands)["shared"]

    def features(
        self, inputs: Tensor, bands: Tensor, beyond: Sides = NOTHING_BEYOND
    ) -> dict[str, Tensor]:
        """Features by scale: `fine` (the last grid before tokens), `token`, `shared`.

        beyond: tokens above, below, left and right of the inputs where every pixel is missing; the
        features are of these, too. Pixels next to them must be missing for `pixel_reach` tokens
        twice over.
        """
        fine, moments = self._of_pixels(inputs, bands)
        if any(beyond):
            side = (2 * self.pixel_reach + 1) * self.pixels_per_token
            missing = inputs.new_zeros(1, len(bands), BandStem.INPUTS, side, side)
            fine, moments = (
                _with_missing(found, nothing, self.pixel_reach, beyond)
                for found, nothing in zip(
                    (fine, moments), self._of_pixels(missing, bands), strict=True
                )
            )
        token = self.blocks(self.gather(fine) + self.moments.out(moments))
        with torch.autocast(inputs.device.type, enabled=False):
            # Half precision has no room for a hundredth of a token.
            past = self.past(moments)
        shared = self.project(token) + past
        return {"fine": fine, "token": token, "shared": shared}

    def covered(self, flux: Tensor) -> tuple[tuple[slice, ...], Sides]:
        """The pixels that an encoder needs to see of `flux` [sample, band, y, x], NaN where
        missing, and how many tokens lie beyond them (see `features`)."""
        there = torch.isfinite(flux).flatten(0, 1).any(dim=0)
        n, margin = self.pixels_per_token, 2 * self.pixel_reach
        slices, beyond = [], []
        for known in (there.any(dim=1), there.any(dim=0)):
            length = len(known) // n
            tokens = torch.nonzero(known.view(length, n).any(dim=1)).flatten().tolist() or [0]
            first, last = max(tokens[0] - margin, 0), min(tokens[-1] + 1 + margin, length)
            if length <= margin:
                first, last = 0, length
            slices.append(slice(first * n, last * n))
            beyond += [first, length - last]
        return (slice(None), slice(None), *slices), (beyond[0], beyond[1], beyond[2], beyond[3])

    def _of_pixels(self, inputs: Tensor, bands: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.grids(functional.gelu(self.stem(inputs, bands)))
        return fine, self.moments(inputs, bands)


def _with_missing(found: Tensor, missing: Tensor, edge: int, beyond: Sides) -> Tensor:
    """What is found on a window, and on missing sky beyond it.

    Missing sky is the same everywhere but at the window's edge: what is found on a small window of
    it, `missing`, of 2 · edge + 1 tokens, stands for all of it.
    """
    each = missing.shape[2] // (2 * edge + 1)  # positions a token
    edge *= each
    top, bottom, left, right = (tokens * each for tokens in beyond)
    height, width = found.shape[2] + top + bottom, found.shape[3] + left + right
    rows, columns = (_stretched(length, edge, each, found.device) for length in (height, width))
    whole = missing[:, :, rows[:, None], columns].repeat(len(found), 1, 1, 1)
    # Along a side beyond which sky was left out, convolutions saw an edge that isn't there.
    inner = [edge if side else 0 for side in beyond]
    y = slice(inner[0], found.shape[2] - inner[1])
    x = slice(inner[2], found.shape[3] - inner[3])
    whole[:, :, top + y.start : top + y.stop, left + x.start : left + x.stop] = found[:, :, y, x]
    return whole


def _stretched(length: int, edge: int, each: int, device: torch.device) -> Tensor:
    """Places in a window of 2 · edge + each positions that those of a longer one are like."""
    places = torch.arange(length, device=device)
    from_end = places - length + 2 * edge + each
    inner = edge + (places - edge) % each
    return torch.where(places < edge, places, torch.where(from_end < edge + each, inner, from_end))


def _coarser(width: int, wider: int, factor: int) -> nn.Module:
    """Squares of `factor` × `factor` positions as one."""
    return nn.Sequential(ChannelNorm(width), nn.Conv2d(width, wider, factor, stride=factor))
