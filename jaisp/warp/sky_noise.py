"""The sky's own noise, where a tile's noise plane includes that of its sources."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32
from scipy.ndimage import maximum_filter, uniform_filter

from jaisp.warp.background import robust_scatter, sky_level

BIN_ARCSEC = 1.0
BOX_ARCSEC = 8.0
THRESHOLD = 4.0  # of the scatter of bins
SMALLEST_SKY_SHARE = 0.05


def background_noise(
    flux: Float32[np.ndarray, "y x"], noise: Float32[np.ndarray, "y x"], grid_arcsec: float
) -> Float32[np.ndarray, "y x"]:
    """The noise with the sources' own share taken out.

    Sources are found in bins of 1″: those above 4σ of their scatter, and their neighbours. There
    the noise is at most the mean noise of the sky within 8″, or of the patch's sky, or, in a patch
    full of source, the patch's lowest decile.
    """
    size = max(1, round(BIN_ARCSEC / grid_arcsec))
    shape = tuple(-(-length // size) for length in flux.shape)
    total, total_noise, count = (np.zeros(shape, np.float32) for _ in range(3))
    _bin(flux, noise, size, total, total_noise, count)
    known = count > 0
    if not known.any():
        return noise
    # Of the flux, not of its ratio to the noise: noise that includes sources would hide them.
    mean = np.divide(total, count, out=np.zeros(shape, np.float32), where=known)
    level = sky_level(mean[known])
    high = known & (mean - level > THRESHOLD * robust_scatter(mean[known]))
    sources = maximum_filter(high, 3)
    sky = np.where(sources, np.float32(0), count)
    if sky.any():
        box = max(3, round(BOX_ARCSEC / (size * grid_arcsec)))
        share = uniform_filter(sky, box, mode="constant")
        local = uniform_filter(np.where(sources, np.float32(0), total_noise), box, mode="constant")
        enough = share > SMALLEST_SKY_SHARE * size**2
        everywhere = total_noise[sky > 0].sum() / sky.sum()
        limit = np.where(enough, local / np.where(enough, share, 1), everywhere)
    else:
        limit = np.full(shape, np.percentile(total_noise[known] / count[known], 10))
    limit = np.where(sources, limit, np.inf).astype(np.float32)
    capped = np.empty_like(noise)
    _cap(noise, limit, size, capped)
    return capped


@numba.njit(cache=True, nogil=True)
@no_type_check
def _bin(flux, noise, size, total, total_noise, count):
    """Sums of the known pixels of each bin, and how many they are."""
    for i in range(flux.shape[0]):
        row = i // size
        for column in range(total.shape[1]):
            value_sum, noise_sum, known = np.float32(0), np.float32(0), np.float32(0)
            for j in range(column * size, min((column + 1) * size, flux.shape[1])):
                value, sigma = flux[i, j], noise[i, j]
                if np.isfinite(value) and np.isfinite(sigma):
                    value_sum += value
                    noise_sum += sigma
                    known += 1
            total[row, column] += value_sum
            total_noise[row, column] += noise_sum
            count[row, column] += known


@numba.njit(cache=True, nogil=True)
@no_type_check
def _cap(noise, limit, size, capped):
    for i in range(noise.shape[0]):
        for column in range(limit.shape[1]):
            most = limit[i // size, column]
            for j in range(column * size, min((column + 1) * size, noise.shape[1])):
                # A missing one stays so.
                capped[i, j] = most if noise[i, j] > most else noise[i, j]
