"""The sky's own noise, where a tile's noise plane includes that of its sources."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32

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
    box = max(3, round(BOX_ARCSEC / (bins.size * grid_arcsec)))
    enough = SMALLEST_SKY_SHARE * (box * bins.size) ** 2
    limit = np.full(sources.shape, np.inf, np.float32)
    if not _limit_by_sky(sources, bins.noise, bins.count, box, enough, limit):
        limit[sources] = np.percentile(bins.noise[bins.known] / bins.count[bins.known], 10)
    capped = np.empty_like(noise)
    _cap(noise, limit, bins.size, capped)
    return capped


@numba.njit(cache=True, nogil=True)
@no_type_check
def _limit_by_sky(sources, noise, count, box, enough, limit):
    """The sky's mean noise about each source; whether there is any sky."""
    total, sky = 0.0, 0.0
    for i in range(sources.shape[0]):
        for j in range(sources.shape[1]):
            if not sources[i, j]:
                total += noise[i, j]
                sky += count[i, j]
    if sky == 0:
        return False
    before, after = box // 2, box - box // 2
    for i in range(sources.shape[0]):
        for j in range(sources.shape[1]):
            if not sources[i, j]:
                continue
            near, share = 0.0, 0.0
            for m in range(max(i - before, 0), min(i + after, sources.shape[0])):
                for n in range(max(j - before, 0), min(j + after, sources.shape[1])):
                    if not sources[m, n]:
                        near += noise[m, n]
                        share += count[m, n]
            limit[i, j] = near / share if share > enough else total / sky
    return True


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
