"""Where each pixel of a patch lies on a tile: the exact WCS on a coarse grid, splines between.

Evaluating a WCS costs more than resampling. Its map from patch to tile is smooth over a patch, so
it is evaluated at a few nodes, checked against the exact WCS between them, and the nodes are made
denser until the map is right to a thousandth of an arcsecond.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_scales, wcs_to_celestial_frame
from jaxtyping import Float64
from scipy.interpolate import make_interp_spline

TOLERANCE_ARCSEC = 0.001
FIRST_STEP = 32


@dataclass(frozen=True)
class PixelMap:
    """Position of every output pixel on the input image, and the area it covers there.

    x, y: input pixels, 0 at the centre of the first; NaN where the input has no such sky.
    area: input pixels per output pixel (the Jacobian determinant of the map). margin: input pixels
    to the input's nearest edge, negative outside.
    """

    x: Float64[np.ndarray, "row column"]
    y: Float64[np.ndarray, "row column"]
    area: Float64[np.ndarray, "row column"]
    margin: Float64[np.ndarray, "row column"]


def pixel_map(
    output: WCS, shape: tuple[int, int], tile: WCS, tile_shape: tuple[int, int]
) -> PixelMap:
    """Map pixels of `output` (of `shape` rows and columns) to `tile`, good to 1 mas.

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
            return _with_margin(*_splined(shape, u, v), tile_shape)
        step //= 2
    return _with_margin(*_exact(output, shape, tile), tile_shape)


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
def _matrices(size: int, count: int, at_midpoints: bool) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that turn values at the nodes into a cubic spline's values and slopes."""
    nodes = _nodes(size, count)
    spline = make_interp_spline(nodes, np.eye(count), k=3)
    at = (nodes[1:] + nodes[:-1]) / 2 if at_midpoints else np.arange(size)
    return spline(at), spline.derivative()(at)


def _error(
    output: WCS, tile: WCS, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray
) -> float:
    """The largest error midway between nodes, in tile pixels; infinite when it can't be told."""
    exact = _positions(output, tile, (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2)
    size_x, size_y = round(x[-1] + 0.5), round(y[-1] + 0.5)
    along_x, _ = _matrices(size_x, len(x), True)
    along_y, _ = _matrices(size_y, len(y), True)
    wrong = [np.abs(along_y @ a @ along_x.T - b).max() for a, b in zip((u, v), exact, strict=True)]
    return float(max(wrong)) if np.isfinite(wrong).all() else np.inf


def _with_margin(
    x: np.ndarray, y: np.ndarray, area: np.ndarray, shape: tuple[int, int]
) -> PixelMap:
    rows, columns = shape
    margin = np.minimum(
        columns / 2 - np.abs(x + 0.5 - columns / 2), rows / 2 - np.abs(y + 0.5 - rows / 2)
    )
    return PixelMap(x, y, area, np.where(np.isnan(margin), -np.inf, margin))


def _splined(
    shape: tuple[int, int], u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and area from the nodes."""
    along_y, slope_y = _matrices(shape[0], u.shape[0], False)
    along_x, slope_x = _matrices(shape[1], u.shape[1], False)
    (u_x, v_x), (u_y, v_y) = (
        [columns_at @ a @ rows_at.T for a in (u, v)]
        for columns_at, rows_at in ((along_y, slope_x), (slope_y, along_x))
    )
    return along_y @ u @ along_x.T, along_y @ v @ along_x.T, np.abs(u_x * v_y - u_y * v_x)


def _exact(
    output: WCS, shape: tuple[int, int], tile: WCS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and area from the WCS at every pixel and every pixel's edges."""
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    x, y = _positions(output, tile, columns, rows)
    edges_x, edges_y = np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5
    across = [np.diff(axis, axis=1) for axis in _positions(output, tile, edges_x, rows)]
    along = [np.diff(axis, axis=0) for axis in _positions(output, tile, columns, edges_y)]
    return x, y, np.abs(across[0] * along[1] - along[0] * across[1])
