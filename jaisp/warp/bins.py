"""A patch in bins of about 1″: where its sources are, at a tenth of a pixel image's cost."""

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32

from jaisp.warp.background import ENOUGH

BIN_ARCSEC = 1.0
THRESHOLD = 4.0  # of the scatter of bins


@dataclass(frozen=True)
class Bins:
    """Sums over the pixels of each bin in which flux and noise are known, and their number.

    size: side of a bin in pixels; the last row and column may be cut.
    """

    size: int
    flux: Float32[np.ndarray, "row column"]
    noise: Float32[np.ndarray, "row column"]
    count: Float32[np.ndarray, "row column"]

    @property
    def known(self) -> Bool[np.ndarray, "row column"]:
        """Bins with a known pixel."""
        return self.count > 0

    def sources(self) -> Bool[np.ndarray, "row column"]:
        """Bins whose mean flux is 4σ above the sky, and their neighbours.

        The level is the bins' median and σ their scatter. The flux counts, not its ratio to the
        noise: noise that includes sources would hide them.
        """
        sources = np.zeros(self.count.shape, bool)
        _find_sources(self.flux, self.count, ENOUGH, sources)
        return sources

    def on_pixels(
        self, values: Bool[np.ndarray, "row column"], shape: tuple[int, int]
    ) -> Bool[np.ndarray, "y x"]:
        """Each pixel with its bin's value."""
        return values.repeat(self.size, 0).repeat(self.size, 1)[: shape[0], : shape[1]]


def bin_patch(
    flux: Float32[np.ndarray, "y x"], noise: Float32[np.ndarray, "y x"], grid_arcsec: float
) -> Bins:
    """Bins of a patch with pixels of `grid_arcsec`; NaN where a pixel is not known."""
    size = max(1, round(BIN_ARCSEC / grid_arcsec))
    shape = tuple(-(-length // size) for length in flux.shape)
    bins = Bins(size, *(np.zeros(shape, np.float32) for _ in range(3)))
    _add(flux, noise, size, bins.flux, bins.noise, bins.count)
    return bins


@numba.njit(cache=True, nogil=True)
@no_type_check
def _add(flux, noise, size, flux_sum, noise_sum, count):
    # Down the rows of a bin first, for that goes in vectors; then along them.
    height, width = flux.shape
    total, total_noise, known = np.empty((3, width), np.float32)
    for row in range(count.shape[0]):
        total[:], total_noise[:], known[:] = 0, 0, 0
        for i in range(row * size, min((row + 1) * size, height)):
            for j in range(width):
                value, sigma = flux[i, j], noise[i, j]
                good = np.isfinite(value) & np.isfinite(sigma)
                total[j] += value if good else np.float32(0)
                total_noise[j] += sigma if good else np.float32(0)
                known[j] += np.float32(1) if good else np.float32(0)
        for column in range(count.shape[1]):
            for j in range(column * size, min((column + 1) * size, width)):
                flux_sum[row, column] += total[j]
                noise_sum[row, column] += total_noise[j]
                count[row, column] += known[j]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _find_sources(flux, count, enough, sources):
    """As `jaisp.warp.background`'s functions find level and scatter, without numpy's calls: this
    is done for every band of every patch."""
    mean = flux / np.maximum(count, np.float32(1))
    found = mean.ravel()[count.ravel() > 0]
    if found.size == 0:
        return
    few = found[:: (found.size - 1) // enough + 1]
    level = np.median(few)
    threshold = THRESHOLD * 1.4826 * np.median(np.abs(few - level))
    for i in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            if count[i, j] > 0 and mean[i, j] - level > threshold:
                sources[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = True
