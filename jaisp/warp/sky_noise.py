"""The sky's own noise, where a tile's noise plane includes that of its sources."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32
from scipy.ndimage import uniform_filter

from jaisp.warp.bins import bin_patch

BOX_ARCSEC = 8.0
SMALLEST_SKY_SHARE = 0.05


def background_noise(
    flux: Float32[np.ndarray, "y x"], noise: Float32[np.ndarray, "y x"], grid_arcsec: float
) -> Float32[np.ndarray, "y x"]:
    """The noise with the sources' own share taken out.

    On sources it is at most the mean noise of the sky within 8″, or of the patch's sky, or, in a
    patch full of source, the patch's lowest decile.
    """
    bins = bin_patch(flux, noise, grid_arcsec)
    if not bins.known.any():
        return noise
    sources = bins.sources()
    sky = np.where(sources, np.float32(0), bins.count)
    if sky.any():
        box = max(3, round(BOX_ARCSEC / (bins.size * grid_arcsec)))
        share = uniform_filter(sky, box, mode="constant")
        total = np.where(sources, np.float32(0), bins.noise)
        local = uniform_filter(total, box, mode="constant")
        enough = share > SMALLEST_SKY_SHARE * bins.size**2
        limit = np.where(enough, local / np.where(enough, share, 1), total.sum() / sky.sum())
    else:
        limit = np.percentile(bins.noise[bins.known] / bins.count[bins.known], 10)
    capped = np.empty_like(noise)
    _cap(noise, np.where(sources, limit, np.inf).astype(np.float32), bins.size, capped)
    return capped


@numba.njit(cache=True, nogil=True)
@no_type_check
def _cap(noise, limit, size, capped):
    most = np.empty(noise.shape[1], np.float32)
    for i in range(noise.shape[0]):
        if i % size == 0:
            for j in range(most.size):
                most[j] = limit[i // size, j // size]
        for j in range(most.size):
            # A missing one stays so.
            capped[i, j] = most[j] if noise[i, j] > most[j] else noise[i, j]
