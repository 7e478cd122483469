"""How much noisier an aperture on empty sky is than its pixels' noise planes say."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from jaisp.store.layout import UNUSABLE, Flag
from jaisp.warp.background import robust_scatter
from jaisp.warp.bins import bin_patch

APERTURES_ARCSEC = (1.0, 3.0)  # diameters
FEWEST = 50
MOST_PATCHES = 16


class NoiseCorrelation:
    """Gathers sums in circular apertures on the source-free sky of a band's patches.

    A resampled image's pixels are correlated, and so are a coadd's: the scatter of their sums is
    not the root of the summed variances. `result` gives the ratio for each aperture.
    """

    def __init__(self) -> None:
        self._sums: tuple[list[np.ndarray], ...] = tuple([] for _ in APERTURES_ARCSEC)

    def add(
        self,
        flux: Float32[np.ndarray, "y x"],
        noise: Float32[np.ndarray, "y x"],
        flags: UInt8[np.ndarray, "y x"],
        grid_arcsec: float,
    ) -> None:
        """Take a patch: sums over white noise, in apertures that abut and hold no source."""
        unusable = np.uint8(UNUSABLE | Flag.SATURATED)
        missing = ~np.isfinite(flux) | ~np.isfinite(noise) | ((flags & unusable) != 0)
        if missing.all():
            return
        bins = bin_patch(flux, noise, grid_arcsec)
        bad = missing | bins.on_pixels(bins.sources(), flux.shape)
        if bad.all():
            return
        # Of all pixels: an error of the level that is nothing in one adds up in an aperture.
        level = np.median(flux[~bad])
        for sums, diameter in zip(self._sums, APERTURES_ARCSEC, strict=True):
            disc = _disc(diameter / grid_arcsec)
            if len(disc) > min(flux.shape):
                continue
            sums.append(_sums(flux, noise, bad, level, disc))

    def result(self) -> tuple[Float32[np.ndarray, " aperture"], list[int]]:
        """Measured over white-noise scatter, and from how many apertures.

        1.0 where fewer than 50 apertures fit on the field's empty sky: the count tells.
        """
        gathered = [
            np.concatenate(sums) if sums else np.zeros(0, np.float32) for sums in self._sums
        ]
        ratios = [robust_scatter(sums) if len(sums) >= FEWEST else 1.0 for sums in gathered]
        return np.array(ratios, np.float32), [len(sums) for sums in gathered]


def _disc(diameter: float) -> Bool[np.ndarray, "k k"]:
    """Whole pixels, so that white noise gives exactly the scatter of their summed variances."""
    reach = int(diameter / 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.hypot(x, y) <= diameter / 2


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _sums(flux, noise, bad, level, disc):
    """Sums over white noise in discs side by side, of those without a bad pixel."""
    size = disc.shape[0]
    found = np.empty((flux.shape[0] // size) * (flux.shape[1] // size), np.float32)
    count = 0
    for i in range(0, flux.shape[0] - size + 1, size):
        for j in range(0, flux.shape[1] - size + 1, size):
            total, variance, whole = 0.0, 0.0, True
            for m in range(size):
                for n in range(size):
                    if disc[m, n]:
                        whole &= not bad[i + m, j + n]
                        total += flux[i + m, j + n] - level
                        variance += np.float64(noise[i + m, j + n]) ** 2
                if not whole:
                    break
            if whole:
                found[count] = total / np.sqrt(variance)
                count += 1
    return found[:count]
