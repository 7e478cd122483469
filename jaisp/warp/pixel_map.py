"""Where each pixel of a patch lies on a tile: the exact WCS on a coarse grid, splines between.

Evaluating a WCS costs more than resampling. Its map from patch to tile is smooth over a patch, so
it is evaluated at a few nodes, checked against the exact WCS between them, and the nodes are made
denser until the map is right to a twentieth of a milliarcsecond.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame
from jaxtyping import Float64, Int64
from scipy.interpolate import BSpline, make_interp_spline

TOLERANCE_ARCSEC = 5e-5
FIRST_STEP = 32

Plane = Float64[np.ndarray, "row column"]


Pieces = Float64[np.ndarray, "row piece 4"]


@dataclass(frozen=True)
class PixelMap:
    """Where each output pixel lies on the input image, and the area it covers there.

    x, y: input pixels, 0 at the centre of the first; NaN where the input has no such sky. area:
    input pixels per output pixel (the Jacobian determinant of the map). Each is a cubic in the
    output's column, one a row and piece: Σₘ c[row, piece, m] (column − starts[piece])ᵐ.
    starts: the first column of each piece, and the number of columns.
    bounds: lowest and highest x, lowest and highest y of the pixels (or a little beyond).
    """

    x: Pieces
    y: Pieces
    area: Pieces
    starts: Int64[np.ndarray, " edge"]
    bounds: tuple[float, float, float, float]

    def values(self) -> tuple[Plane, Plane, Plane]:
        """x, y and area of every pixel."""
        column = np.arange(self.starts[-1])
        piece = np.searchsorted(self.starts, column, side="right") - 1
        power = (column - self.starts[piece])[:, None] ** np.arange(4)
        x, y, area = (
            np.einsum("rcm,cm->rc", pieces[:, piece], power)
            for pieces in (self.x, self.y, self.area)
        )
        return x, y, area

    def at(self, row: int, column: int) -> tuple[float, float]:
        """x and y of one pixel."""
        piece = int(np.searchsorted(self.starts, column, side="right")) - 1
        t = float(column - self.starts[piece])
        x, y = (c0 + t * (c1 + t * (c2 + t * c3)) for c0, c1, c2, c3 in
                (self.x[row, piece].tolist(), self.y[row, piece].tolist()))  # fmt: skip
        return x, y

    def reaches(self, shape: tuple[int, int]) -> bool:
        """Whether it may touch an input image of `shape`."""
        left, right, low, high = self.bounds
        return left < shape[1] - 0.5 and right > -0.5 and low < shape[0] - 0.5 and high > -0.5


def pixel_map(output: WCS, shape: tuple[int, int], tile: WCS) -> PixelMap:
    """Map pixels of `output` (of `shape` rows and columns) to `tile`, good to 0.05 mas.

    Frames may differ. The error is measured against the exact WCS midway between nodes.
    """
    tolerance = TOLERANCE_ARCSEC / pixel_arcsec(tile)
    step = FIRST_STEP
    while step >= 2:
        rows, columns = (max(4, -(-size // step) + 1) for size in shape)
        if rows > shape[0] // 2 or columns > shape[1] // 2:
            break
        node_y, node_x = _nodes(shape[0], rows), _nodes(shape[1], columns)
        u, v = _positions(output, tile, node_x, node_y)
        known = np.isfinite(u).all() and np.isfinite(v).all()
        if known and _error(output, tile, node_x, node_y, u, v) <= tolerance:
            return _splined(shape, u, v)
        step //= 2
    return _exact(output, shape, tile)


def given_positions(x: Plane, y: Plane, area: Plane) -> PixelMap:
    """A map of any shape, known pixel by pixel: a piece each."""
    constant = [np.zeros((*x.shape, 4)) for _ in range(3)]
    for pieces, values in zip(constant, (x, y, area), strict=True):
        pieces[:, :, 0] = values
    on_x, on_y, on_area = constant
    return PixelMap(on_x, on_y, on_area, np.arange(x.shape[1] + 1), _bounds(x, y))


def pixel_arcsec(wcs: WCS) -> float:
    """Geometric mean of a celestial WCS's pixel scales, arcsec."""
    return float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs))) * 3600)


def sky_to_pixel(
    wcs: WCS, ra: Float64[np.ndarray, "*shape"], dec: Float64[np.ndarray, "*shape"]
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Pixel positions of ICRS positions (degrees); NaN where projection or inverse fails."""
    frame = wcs_to_celestial_frame(wcs)
    lon, lat = ra, dec
    if frame.name != "icrs":
        sky = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame)
        lon, lat = sky.spherical.lon.deg, sky.spherical.lat.deg
    world = (lon, lat) if wcs.wcs.lng == 0 else (lat, lon)
    try:
        x, y = wcs.all_world2pix(*world, 0, tolerance=1e-6, maxiter=50)
    except NoConvergence as failure:
        solution = failure.best_solution.copy()
        for wrong in (failure.divergent, failure.slow_conv):
            if wrong is not None:
                solution[wrong] = np.nan
        x, y = (axis.reshape(np.shape(ra)) for axis in solution.T)
    return np.asarray(x, float), np.asarray(y, float)


def _nodes(size: int, count: int) -> np.ndarray:
    """`count` positions from the first pixel's outer edge to the last one's."""
    return np.linspace(-0.5, size - 0.5, count)


def _positions(
    output: WCS, tile: WCS, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exact positions on the tile of the grid y × x of output pixels."""
    grid_x, grid_y = np.meshgrid(x, y)
    ra, dec = output.all_pix2world(grid_x, grid_y, 0)
    return sky_to_pixel(tile, ra, dec)


@lru_cache(maxsize=64)
def _spline(size: int, count: int) -> BSpline:
    """The cubic spline through values at the nodes, for each of the unit vectors of values."""
    return make_interp_spline(_nodes(size, count), np.eye(count), k=3)


@lru_cache(maxsize=64)
def _midway(size: int, count: int) -> Float64[np.ndarray, "midpoint node"]:
    """Turns values at the nodes into the spline's values midway between them."""
    nodes = _nodes(size, count)
    return _spline(size, count)((nodes[1:] + nodes[:-1]) / 2)


@lru_cache(maxsize=64)
def _cubics(
    size: int, count: int
) -> tuple[Int64[np.ndarray, " edge"], Float64[np.ndarray, "4 piece node"]]:
    """First pixel of each piece, and what turns values at the nodes into its polynomial there."""
    starts = np.ceil(_nodes(size, count)[:-1]).astype(int)
    spline = _spline(size, count)
    factorial = (1, 1, 2, 6)
    powers = [spline.derivative(m)(starts) / factorial[m] for m in range(1, 4)]
    return np.append(starts, size), np.stack([spline(starts), *powers])


def _error(
    output: WCS, tile: WCS, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray
) -> float:
    """The largest error midway between nodes, in tile pixels; infinite when it can't be told."""
    exact = _positions(output, tile, (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2)
    along_x = _midway(round(x[-1] + 0.5), len(x))
    along_y = _midway(round(y[-1] + 0.5), len(y))
    wrong = [np.abs(along_y @ a @ along_x.T - b).max() for a, b in zip((u, v), exact, strict=True)]
    return float(max(wrong)) if np.isfinite(wrong).all() else np.inf


def _splined(shape: tuple[int, int], u: np.ndarray, v: np.ndarray) -> PixelMap:
    """The map from its values at the nodes."""
    (slope_y, slope_x) = (
        _spline(size, count).derivative()(_nodes(size, count))
        for size, count in zip(shape, u.shape, strict=True)
    )
    area = np.abs((u @ slope_x.T) * (slope_y @ v) - (v @ slope_x.T) * (slope_y @ u))
    rows = _spline(shape[0], u.shape[0])(np.arange(shape[0]))
    starts, powers = _cubics(shape[1], u.shape[1])
    x, y, a = (
        np.ascontiguousarray(np.moveaxis((rows @ values) @ powers.transpose(0, 2, 1), 0, -1))
        for values in (u, v, area)
    )
    return PixelMap(x, y, a, starts, _bounds(u, v))


def _exact(output: WCS, shape: tuple[int, int], tile: WCS) -> PixelMap:
    """The map from the WCS at every pixel and every pixel's edges."""
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    x, y = _positions(output, tile, columns, rows)
    edges_x, edges_y = np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5
    across = [np.diff(axis, axis=1) for axis in _positions(output, tile, edges_x, rows)]
    along = [np.diff(axis, axis=0) for axis in _positions(output, tile, columns, edges_y)]
    return given_positions(x, y, np.abs(across[0] * along[1] - along[0] * across[1]))


def _bounds(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    if not (np.isfinite(x) & np.isfinite(y)).any():
        return np.inf, -np.inf, np.inf, -np.inf
    return float(np.nanmin(x)), float(np.nanmax(x)), float(np.nanmin(y)), float(np.nanmax(y))
