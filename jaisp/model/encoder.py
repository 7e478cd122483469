"""One survey's encoder: pixels in, what is found of every token of the shared grid out."""

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaisp.model.blocks import BandStem, ChannelNorm, ResidualBlock, grid_strides
from jaisp.model.fluxes import SIDES, BandFluxes, FluxMixer, filtered_fluxes, joined, square_fluxes
from jaisp.model.moments import WINDOWS, Moments
from jaisp.model.size import COARSEST_ARCSEC, Size

# Tokens above, below, left and right of something.
Sides = tuple[int, int, int, int]
NOTHING_BEYOND: Sides = (0, 0, 0, 0)


class Found(NamedTuple):
    """What an encoder finds: `fine`, the last grid before tokens, [sample, channel, y, x]; `what`
    and `measured`, moments and fluxes, peaks first, [sample, channel, row, column]."""

    fine: Tensor
    what: Tensor
    measured: Tensor


class Encoder(nn.Module):
    """Two ways from pixels to tokens: what is there, and how bright it is and where.

    What: a stem over bands and grids of residual convolutions, each half as fine as the one before
    with about twice the channels, and from the last of them tokens. How bright and where: fluxes in
    squares about each token, and moments of the maps in which sources stand out. Both are for the
    trunk, which is the same for all surveys.

    Calling it with `inputs` [sample, band, 3, y, x] and the numbers of the bands gives `Found`.
    """

    def __init__(self, bands: int, pixels_per_token: int, grid_arcsec: float, size: Size) -> None:
        super().__init__()
        self.pixels_per_token = pixels_per_token
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
        self.moments = Moments(bands, pixels_per_token, grid_arcsec, size.moments_arcsec, size.maps)
        self.mixer = FluxMixer(bands, len(SIDES) + len(WINDOWS), size.fluxes)
        self.measured = self.moments.channels + self.mixer.channels
        # Beyond a token, in tokens.
        pixels = max(pixels, self.moments.reach, max(SIDES) // 2 * pixels_per_token)
        self.pixel_reach = math.ceil(pixels / pixels_per_token)
        self.reach_arcsec = pixels * grid_arcsec

    def forward(self, inputs: Tensor, bands: Tensor, beyond: Sides = NOTHING_BEYOND) -> Found:
        """What is found of every token.

        beyond: tokens above, below, left and right of the inputs where every pixel is missing; what
        is found is of these, too. Pixels next to them must be missing for `pixel_reach` tokens
        twice over.
        """
        fine, measured = self._of_pixels(inputs, bands)
        if any(beyond):
            side = (2 * self.pixel_reach + 1) * self.pixels_per_token
            missing = inputs.new_zeros(1, len(bands), BandStem.INPUTS, side, side)
            fine, measured = (
                _with_missing(found, nothing, self.pixel_reach, beyond)
                for found, nothing in zip(
                    (fine, measured), self._of_pixels(missing, bands), strict=True
                )
            )
        return Found(fine, self.gather(fine), measured)

    def covered(self, flux: Tensor) -> tuple[tuple[slice, ...], Sides]:
        """The pixels that an encoder needs to see of `flux` [sample, band, y, x], NaN where
        missing, and how many tokens lie beyond them (see `features`)."""
        # Of NaN and a number, fmax is the number: one plane tells of all.
        most = reduce(torch.fmax, flux.flatten(0, 1))
        there = most == most
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
        moments, fluxes = measure(self.moments, inputs, bands, self.pixels_per_token)
        return fine, torch.cat([moments, self.mixer(fluxes, bands)], dim=1)


def measure(
    moments: Moments, inputs: Tensor, bands: Tensor, pixels_per_token: int
) -> tuple[Tensor, BandFluxes]:
    """Moments about every token, and fluxes of all kinds: in squares, and where sources stand out
    in each of the moments' windows."""
    with torch.autocast(inputs.device.type, enabled=False):
        places, snr = moments(inputs, bands)
        squares = square_fluxes(inputs.float(), pixels_per_token)
        filtered = filtered_fluxes(inputs.float(), snr, pixels_per_token)
    return places, joined(squares, filtered)


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
