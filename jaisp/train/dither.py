"""Views displaced by parts of a pixel: the same sky, as a pixel grid laid elsewhere would show it.

By a phase shift of the flux, which is exact for whatever is sampled well enough, and leaves white
noise white and as strong as it was; every kernel of finite length smooths it. What is not sampled
well enough rings along its row and its column: a star whose FWHM is 1.8 pixels (Euclid VIS) by up
to 5 % of its peak beside it and 1 % four pixels away, falling as one over the distance; one of 2.5
pixels by 1 % and 0.3 %.
"""

import math

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

# Pixels around a view that are shifted with it and cut off: a Fourier transform takes one side of
# an image to go on at the other, so that flux is led to zero on the way out.
MARGIN = 8
FLAT = 2  # of them, next to the view, keep all their flux
AROUND = 2  # pixels each way, of whose mean a missing one's stand-in is made


def displaced(
    flux: Float32[Tensor, "sample band tall wide"],
    valid: Bool[Tensor, "sample band tall wide"],
    fraction: Float32[Tensor, "sample 2"],
) -> Float32[Tensor, "sample band y x"]:
    """Flux at places `fraction` (rows, columns; ± ½ pixel) beyond each pixel, in the same unit.

    MARGIN pixels on every side are cut off. NaN is missing. A fraction of zero changes nothing.

    A value between pixels is missing where one of those is that it lies between (two along an
    axis, four in all), which have most of the kernel's weight. Pixels farther away have less than
    0.22 of it each, alternating in sign: of these a missing one is stood in for by the mean of the
    valid ones around it, so that neither its own value nor the rim of a hole in a bright source
    rings across the image.
    """
    tall, wide = flux.shape[-2:]
    moved = torch.fft.irfft2(
        torch.fft.rfft2(_filled(flux, valid) * _taper(tall, flux)[:, None] * _taper(wide, flux))
        * _phase(torch.fft.fftfreq(tall, device=flux.device), fraction[:, 0])[:, None, :, None]
        * _phase(torch.fft.rfftfreq(wide, device=flux.device), fraction[:, 1])[:, None, None],
        s=(tall, wide),
    )
    still = (fraction == 0).all(dim=1)[:, None, None, None]
    moved = torch.where(still, flux, moved)
    between = _between(_between(valid, fraction[:, 0], -2), fraction[:, 1], -1)
    return trimmed(torch.where(between, moved, torch.nan))


def trimmed(planes: Tensor) -> Tensor:
    """Planes [sample, band, y, x] without their margin."""
    return planes[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def _phase(frequency: Float32[Tensor, " mode"], fraction: Float32[Tensor, " sample"]) -> Tensor:
    """exp(2πi ν f) [sample, mode]; 1 at the Nyquist frequency, whose phase pixels don't tell."""
    angle = 2 * math.pi * fraction[:, None] * torch.where(frequency.abs() == 0.5, 0.0, frequency)
    return torch.polar(torch.ones_like(angle), angle)


def _taper(side: int, like: Tensor) -> Float32[Tensor, " side"]:
    """From zero at both ends to one, FLAT pixels before the margin ends."""
    place = torch.arange(side, device=like.device) + 0.5
    ramp = torch.minimum(place, side - place) / (MARGIN - FLAT)
    return (ramp.clamp(max=1.0) * (math.pi / 2)).sin().square()


def _filled(flux: Tensor, valid: Tensor) -> Tensor:
    """Flux with a stand-in where it is missing: zero where nothing valid is near."""
    known = torch.where(valid, flux, 0.0)
    count, total = (_summed_around(planes) for planes in (valid.to(flux.dtype), known))
    return torch.where(valid, known, total / count.clamp(min=1.0))


def _summed_around(planes: Tensor) -> Tensor:
    """Sums of squares of 2 · AROUND + 1 pixels; in a fifth of the time of torch's pooling."""
    for axis in (-2, -1):
        total, side = planes.clone(), planes.shape[axis]
        for step in range(1, AROUND + 1):
            before, after = (planes.narrow(axis, first, side - step) for first in (0, step))
            total.narrow(axis, step, side - step).add_(before)
            total.narrow(axis, 0, side - step).add_(after)
        planes = total
    return planes


def _between(valid: Tensor, fraction: Float32[Tensor, " sample"], axis: int) -> Tensor:
    """Whether both pixels of an axis are valid that a place lies between."""
    along = fraction[:, None, None, None]
    other = torch.where(along > 0, valid.roll(-1, axis), valid.roll(1, axis))
    return valid & (other | (along == 0))
