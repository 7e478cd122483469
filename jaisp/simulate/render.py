"""Draw sums of Gaussians onto pixels, integrated over each pixel."""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32, Int
from numba import njit

from jaisp.simulate.profiles import Mixture

# A unit square seen as two narrow Gaussians per axis: same moments up to the fifth, so that a
# Gaussian of σ ≥ 0.6 pixel is integrated over pixels to 1e-4 (one Gaussian of variance 1/12: 1e-2).
PAIR_OFFSET = 240.0**-0.25
PAIR_VARIANCE = 1.0 / 12.0 - PAIR_OFFSET**2
WIDE = 1.0  # pixel²: above it one Gaussian is good to 2e-3
NEGLIGIBLE = 0.1  # variance beside another that it adds to
FAR = 6.0  # σ: no Gaussian is drawn beyond


def render(
    image: Float32[np.ndarray, "y x"],
    position: Float[np.ndarray, "source 2"],
    flux: Float[np.ndarray, " source"],
    shape: Float[np.ndarray, "source 3"],
    kind: Int[np.ndarray, " source"],
    profiles: list[Mixture],
    psf: Mixture,
    level: float,
) -> None:
    """Add sources to `image`.

    position: x, y in pixels, the first pixel's centre at 0, 0
    flux: in the image's unit, summed over pixels
    shape: xx, xy, yy of the covariance (pixel²) that a profile's unit radius stands for
    kind: which of `profiles` a source has
    psf: in pixels
    level: value per pixel below which a Gaussian is cut off
    """
    count = max(len(profile.weight) for profile in profiles)
    weight = np.zeros((len(profiles), count))
    variance = np.zeros((len(profiles), count))
    for row, profile in enumerate(profiles):
        weight[row, : len(profile.weight)] = profile.weight
        variance[row, : len(profile.weight)] = profile.variance
    _render(image, position, flux, shape, kind, weight, variance, psf.weight, psf.variance, level)


@njit(cache=True)
@no_type_check
def _render(image, position, flux, shape, kind, weight, variance, psf_weight, psf_variance, level):
    profile_weight, profile_variance = np.empty(weight.shape[1]), np.empty(weight.shape[1])
    seen_weight, seen_variance = np.empty(len(psf_weight)), np.empty(len(psf_weight))
    for source in range(len(flux)):
        x, y = position[source]
        xx, xy, yy = shape[source]
        narrowest = _narrowest(xx, xy, yy)
        # What is narrow beside what it is convolved with counts as one Gaussian.
        limit = NEGLIGIBLE * psf_variance[0] / max(xx + yy - narrowest, 1e-12)
        profiles = _merge(
            weight[kind[source]], variance[kind[source]], limit, profile_weight, profile_variance
        )
        for k in range(profiles):
            v = profile_variance[k]
            points = _merge(
                psf_weight, psf_variance, NEGLIGIBLE * v * narrowest, seen_weight, seen_variance
            )
            for p in range(points):
                amount, s = flux[source] * profile_weight[k] * seen_weight[p], seen_variance[p]
                _add_gaussian(image, x, y, amount, v * xx + s, v * xy, v * yy + s, level)


@njit(cache=True)
@no_type_check
def _merge(weight, variance, limit, merged_weight, merged_variance):
    """Replace the Gaussians below a variance by one with their mean variance; returns the rest."""
    count, total, moment = 0, 0.0, 0.0
    for k in range(len(weight)):
        if variance[k] < limit:
            total += weight[k]
            moment += weight[k] * variance[k]
        elif weight[k] > 0.0:
            merged_weight[count], merged_variance[count] = weight[k], variance[k]
            count += 1
    if total > 0.0:
        merged_weight[count], merged_variance[count] = total, moment / total
        count += 1
    return count


@njit(cache=True)
@no_type_check
def _narrowest(xx, xy, yy):
    return 0.5 * (xx + yy - math.sqrt((xx - yy) ** 2 + 4.0 * xy**2))


@njit(cache=True)
@no_type_check
def _add_gaussian(image, x, y, flux, xx, xy, yy, level):
    if _narrowest(xx, xy, yy) > WIDE:
        _add_sampled(image, x, y, flux, xx + 1.0 / 12.0, xy, yy + 1.0 / 12.0, level)
        return
    xx, yy, flux = xx + PAIR_VARIANCE, yy + PAIR_VARIANCE, 0.25 * flux
    for dx in (-PAIR_OFFSET, PAIR_OFFSET):
        for dy in (-PAIR_OFFSET, PAIR_OFFSET):
            _add_sampled(image, x + dx, y + dy, flux, xx, xy, yy, level)


@njit(cache=True)
@no_type_check
def _add_sampled(image, x, y, flux, xx, xy, yy, level):
    """Add a Gaussian's values at pixel centres, within the ellipse where it matters."""
    height, width = image.shape
    determinant = xx * yy - xy * xy
    a, b = yy / determinant, -xy / determinant
    peak = flux / (2.0 * math.pi * math.sqrt(determinant))
    reach2 = FAR**2
    if level > 0.0:
        reach2 = min(2.0 * math.log(max(peak / level, 1.0)), FAR**2)
    half_height = math.sqrt(reach2 * yy)
    # Along a row, exp of a quadratic follows from its neighbour by two multiplications.
    second = math.exp(-a)
    for row in range(max(0, math.ceil(y - half_height)), min(height, int(y + half_height) + 1)):
        dy = row - y
        rest = reach2 - dy * dy / yy
        if rest <= 0.0:
            continue
        half_width = math.sqrt(rest / a)
        centre = x - b * dy / a
        first = max(0, math.ceil(centre - half_width))
        last = min(width - 1, math.floor(centre + half_width))
        dx = first - centre
        value = peak * math.exp(-0.5 * (a * dx * dx + dy * dy / yy))
        step = math.exp(-a * (dx + 0.5))
        for column in range(first, last + 1):
            image[row, column] += value
            value *= step
            step *= second
