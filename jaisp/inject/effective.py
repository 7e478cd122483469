"""Effective PSFs: a star's image on pixels, known at any place within a pixel, with its slopes.

A star's pixel values are one smooth function of its offset from each pixel's centre (Anderson &
King 2000, PASP 112, 1360). It is drawn at steps of a quarter of a pixel and interpolated by cubic
B-splines; slopes are the spline's own.
"""

from typing import Protocol, no_type_check, runtime_checkable

import numba
import numpy as np
from jaxtyping import Float, Float32, Float64, Int
from scipy.ndimage import spline_filter
from scipy.spatial import cKDTree

STEPS = 4  # a pixel
RIM = 2  # pixels beyond a stamp's edge, for the spline's reach


@runtime_checkable
class PointSpread(Protocol):
    """The PSF of one tile on the native pixels of its detector."""

    @property
    def pixel_arcsec(self) -> float:
        """Side of a native pixel."""

    @property
    def factor(self) -> int:
        """Tile pixels along a native pixel's side."""

    @property
    def places(self) -> Float64[np.ndarray, "place 2"]:
        """x, y of the points that stand for the tile; a PSF is that of the nearest one."""

    def fine(self, place: int, reach: int) -> Float64[np.ndarray, "fine fine"]:
        """What pixels at STEPS offsets a pixel see of a point of unit flux in the middle: offsets
        from −reach in steps, (2 reach + 1) STEPS of them along each side."""

    def fwhm_arcsec(self, place: int) -> float:
        """Its width."""


class EffectivePsf:
    """Spline coefficients of a tile's PSF, made for each place when they are first asked for.

    half: pixels that a stamp reaches from its middle.
    """

    def __init__(self, psf: PointSpread, half: int) -> None:
        self.psf, self.half = psf, half
        self._made: dict[int, np.ndarray] = {}

    def place_of(
        self, x: Float[np.ndarray, " source"], y: Float[np.ndarray, " source"]
    ) -> Int[np.ndarray, " source"]:
        """The place that stands for each position (native pixels)."""
        places = self.psf.places
        if len(places) == 1:
            return np.zeros(len(x), int)
        return cKDTree(places).query(np.stack([x, y], axis=1))[1]

    def coefficients(self, place: int) -> Float32[np.ndarray, "step step side side"]:
        """By phase (y, x) and pixel (y, x)."""
        if place not in self._made:
            side = 2 * (self.half + RIM) + 1
            fine = self.psf.fine(place, self.half + RIM)
            splines = spline_filter(fine, order=3, mode="mirror", output=np.float32)
            phases = splines.reshape(side, STEPS, side, STEPS).transpose(1, 3, 0, 2)
            self._made[place] = np.ascontiguousarray(phases)
        return self._made[place]


@numba.njit(cache=True, inline="always")
@no_type_check
def spline_weights(part, weight, slope):
    """Cubic B-spline weights of four neighbouring knots, and their derivatives by a knot."""
    rest = 1.0 - part
    weight[0] = rest**3 / 6.0
    weight[1] = 2.0 / 3.0 - 0.5 * part**2 * (2.0 - part)
    weight[2] = 2.0 / 3.0 - 0.5 * rest**2 * (2.0 - rest)
    weight[3] = part**3 / 6.0
    slope[0] = -0.5 * rest**2
    slope[1] = 1.5 * part**2 - 2.0 * part
    slope[2] = -1.5 * rest**2 + 2.0 * rest
    slope[3] = 0.5 * part**2


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
@no_type_check
def draw(coefficients, x, y, size, image, slope_x, slope_y):
    """A star of unit flux at pixel x, y of a stamp of `size` pixels a side, and d/dx, d/dy of it.

    coefficients: of one place.
    """
    steps, side = coefficients.shape[0], coefficients.shape[2]
    middle = (side - 1) / 2
    weight_x, weight_y = np.empty(4, np.float32), np.empty(4, np.float32)
    by_x, by_y = np.empty(4, np.float32), np.empty(4, np.float32)
    knot_x, knot_y = (middle - x) * steps, (middle - y) * steps
    first_x, first_y = int(np.floor(knot_x)), int(np.floor(knot_y))
    spline_weights(np.float32(knot_x - first_x), weight_x, by_x)
    spline_weights(np.float32(knot_y - first_y), weight_y, by_y)
    image[:size, :size] = 0.0
    slope_x[:size, :size] = 0.0
    slope_y[:size, :size] = 0.0
    for tap_y in range(4):
        knot = first_y + tap_y - 1
        row, phase_y = knot // steps, knot % steps
        for tap_x in range(4):
            knot = first_x + tap_x - 1
            column, phase_x = knot // steps, knot % steps
            both = weight_y[tap_y] * weight_x[tap_x]
            # Moving the star to the right moves what a pixel sees to the left.
            along_x = -np.float32(steps) * weight_y[tap_y] * by_x[tap_x]
            along_y = -np.float32(steps) * by_y[tap_y] * weight_x[tap_x]
            plane = coefficients[phase_y, phase_x]
            for v in range(size):
                if v + row < 0 or v + row >= side:
                    continue
                start = max(0, -column)
                stop = min(size, side - column)
                for u in range(start, stop):
                    value = plane[v + row, u + column]
                    image[v, u] += both * value
                    slope_x[v, u] += along_x * value
                    slope_y[v, u] += along_y * value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
@no_type_check
def add_star(image, coefficients, x, y, flux, half):
    """Add a star at pixel x, y of an image, out to `half` pixels from the one that holds it."""
    steps, side = coefficients.shape[0], coefficients.shape[2]
    middle = (side - 1) / 2
    left, low = int(np.rint(x)) - half, int(np.rint(y)) - half
    weight_x, weight_y = np.empty(4, np.float32), np.empty(4, np.float32)
    unused = np.empty(4, np.float32)
    knot_x, knot_y = (middle - (x - left)) * steps, (middle - (y - low)) * steps
    first_x, first_y = int(np.floor(knot_x)), int(np.floor(knot_y))
    spline_weights(np.float32(knot_x - first_x), weight_x, unused)
    spline_weights(np.float32(knot_y - first_y), weight_y, unused)
    rows, columns = image.shape
    for tap_y in range(4):
        knot = first_y + tap_y - 1
        row, phase_y = knot // steps, knot % steps
        for tap_x in range(4):
            knot = first_x + tap_x - 1
            column, phase_x = knot // steps, knot % steps
            both = np.float32(flux) * weight_y[tap_y] * weight_x[tap_x]
            plane = coefficients[phase_y, phase_x]
            start = max(0, -column, -left)
            stop = min(2 * half + 1, side - column, columns - left)
            for v in range(max(0, -row, -low), min(2 * half + 1, side - row, rows - low)):
                for u in range(start, stop):
                    image[low + v, left + u] += both * plane[v + row, u + column]
