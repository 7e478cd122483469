"""How bright it is about each token, in every band.

A stretched image summed by convolutions tells a flux only as far as they have learnt to undo the
stretch, pixel by pixel in the noise. Here pixels are summed first and stretched afterwards: in
squares, which hold galaxies, and under a filter where a source stands out most (`moments.py`),
which is what tells colours of faint ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

SIDES = (1, 3)  # of the squares, in tokens
FEWEST_PIXELS = 0.5  # of a square's, that must be valid: what is missing is taken to be like them
STRETCHED = 0.3  # of asinh: bright sources are a few


class BandFluxes(NamedTuple):
    """Fluxes about every token, [kind, sample, band, row, column], of as many kinds as there are.

    flux: in units of its typical noise. noise: 1 σ, in the same unit, where pixels are independent.
    share: of the pixels that are valid; beyond the image none is.
    """

    flux: Tensor
    noise: Tensor
    share: Tensor


def square_fluxes(inputs: Tensor, n: int) -> BandFluxes:
    """Fluxes in squares about tokens of n × n pixels. inputs: [sample, band, 3, y, x], as
    `network_inputs` gives them."""
    signal, valid, depth = inputs.unbind(dim=2)
    noise = depth.exp()  # in units of the typical noise
    planes = torch.stack([signal.sinh() * noise * valid, noise.square() * valid, valid])
    tokens = avg_pool2d(planes.flatten(0, 1), n)
    found = []
    for side in SIDES:
        sums = avg_pool2d(tokens, side, stride=1, padding=side // 2).unflatten(0, planes.shape[:2])
        flux, variance, share = sums
        there = share.clamp(min=1 / (side * n) ** 2)
        found.append((flux / there * (side * n), (variance / there).sqrt(), share))
    return BandFluxes(*(torch.stack(each) for each in zip(*found, strict=True)))


def filtered_fluxes(inputs: Tensor, snr: Tensor, n: int) -> BandFluxes:
    """Fluxes from S/N under filters about tokens of n × n pixels, [kind, sample, band, row,
    column]: as bright as they are, not as the noise is."""
    _, valid, depth = inputs.unbind(dim=2)
    share = avg_pool2d(valid, n)
    noise = (avg_pool2d(depth, n) / share.clamp(min=n**-2)).exp()
    return BandFluxes(snr * noise, noise.expand_as(snr), share.expand_as(snr))


def joined(first: BandFluxes, second: BandFluxes) -> BandFluxes:
    """Fluxes of the kinds of both, one after another."""
    return BandFluxes(*(torch.cat(each) for each in zip(first, second, strict=True)))


class FluxMixer(nn.Module):
    """Numbers that all surveys share, [sample, channel, row, column], linear in asinh of the fluxes
    about every token, in any set of bands; a missing band adds nothing.

    Calling it takes `BandFluxes` and the numbers of the bands.
    """

    def __init__(self, bands: int, kinds: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        bound = (bands * kinds) ** -0.5
        self.weight = nn.Parameter(torch.randn(bands, kinds, channels) * bound)
        self.bias = nn.Parameter(torch.zeros(bands, kinds, channels))

    def forward(self, fluxes: BandFluxes, bands: Tensor) -> Tensor:
        """See the class."""
        known = (fluxes.share >= FEWEST_PIXELS).float()
        value = STRETCHED * fluxes.flux.asinh() * known
        sums = torch.einsum("ksbyx,bkc->scyx", value, self.weight[bands])
        return sums + torch.einsum("ksbyx,bkc->scyx", known, self.bias[bands])
