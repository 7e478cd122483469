"""Optical transfer functions: Fourier transforms of point spread functions.

A Moffat profile stands for the atmosphere, and the autocorrelation of an obscured pupil with struts
for a telescope in space (Born & Wolf, section 9.5). All are real: no PSF here has a coma, so that
its centroid is the source's place.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Float32
from scipy.fft import next_fast_len
from scipy.ndimage import map_coordinates
from scipy.special import gamma, kv

RADIANS = np.pi / 180.0 / 3600.0  # an arcsec
PUPIL_PIXELS = 256  # across the mirror
PUPIL_SAMPLES = 4  # per pixel and axis, so that edges are smooth
WAVELENGTHS = 7  # that stand for a band
TABLE_STEP = 0.002  # of the Moffat table: frequency times α


@dataclass(frozen=True)
class Telescope:
    """A telescope above the atmosphere. Lengths in metres; vanes at equal angles from +y."""

    diameter: float
    obscuration: float  # of the diameter
    struts: int
    strut_width: float


@cache
def moffat_table(beta: float) -> Float32[np.ndarray, " frequency"]:
    """Transfer function of a Moffat profile of scale α = 1, every TABLE_STEP of frequency."""
    wave = 2.0 * np.pi * TABLE_STEP * np.arange(1, 6001)
    value = 2.0 ** (2.0 - beta) / gamma(beta - 1.0) * wave ** (beta - 1.0) * kv(beta - 1.0, wave)
    return np.concatenate([[1.0], value]).astype(np.float32)


def moffat_scale(fwhm: float, beta: float) -> float:
    """α of a Moffat profile (Moffat 1969, A&A 3, 455)."""
    return fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))


def telescope_transfer(
    telescope: Telescope,
    edges: tuple[float, float],
    frequency_y: Float[np.ndarray, " y"],
    frequency_x: Float[np.ndarray, " x"],
) -> Float32[np.ndarray, "y x"]:
    """Transfer function of a band, the mean over wavelengths between its `edges` (nm).

    Frequencies in cycles per arcsec.
    """
    table = _pupil_transfer(telescope)
    origin = (table.shape[0] - 1) / 2
    total = np.zeros((len(frequency_y), len(frequency_x)), np.float32)
    step = (edges[1] - edges[0]) / WAVELENGTHS
    for nm in edges[0] + step * (np.arange(WAVELENGTHS) + 0.5):
        scale = origin * nm * 1e-9 / RADIANS / telescope.diameter
        rows, columns = np.meshgrid(
            origin + scale * frequency_y, origin + scale * frequency_x, indexing="ij"
        )
        total += map_coordinates(table, [rows, columns], output=np.float32, order=1)
    return total / WAVELENGTHS


@cache
def _pupil_transfer(telescope: Telescope) -> Float[np.ndarray, "y x"]:
    """Autocorrelation of the pupil for shifts of ± a diameter, 1 in the middle."""
    pupil = _pupil(telescope)
    side = next_fast_len(2 * PUPIL_PIXELS + 1)
    spectrum = np.abs(np.fft.fft2(pupil, (side, side))) ** 2
    shifts = np.arange(-PUPIL_PIXELS, PUPIL_PIXELS + 1)
    overlap = np.fft.ifft2(spectrum).real[np.ix_(shifts, shifts)]
    # Squares of partly covered pixels at the edges would count too little without a shift.
    overlap[PUPIL_PIXELS, PUPIL_PIXELS] = pupil.sum()
    overlap /= pupil.sum()
    return np.where(overlap > 1e-9, overlap, 0.0)


def _pupil(telescope: Telescope) -> Float[np.ndarray, "y x"]:
    """The share of each pixel of the mirror that light falls on."""
    side = PUPIL_PIXELS * PUPIL_SAMPLES
    axis = (np.arange(side) + 0.5) / side - 0.5  # in diameters
    y, x = np.meshgrid(axis, axis, indexing="ij")
    radius = np.hypot(x, y)
    open_ = (radius < 0.5) & (radius > 0.5 * telescope.obscuration)
    for strut in range(telescope.struts):
        angle = 2.0 * np.pi * strut / telescope.struts
        along = -x * np.sin(angle) + y * np.cos(angle)
        across = x * np.cos(angle) + y * np.sin(angle)
        open_ &= ~(
            (along > 0) & (np.abs(across) < 0.5 * telescope.strut_width / telescope.diameter)
        )
    return open_.reshape(PUPIL_PIXELS, PUPIL_SAMPLES, PUPIL_PIXELS, PUPIL_SAMPLES).mean((1, 3))
