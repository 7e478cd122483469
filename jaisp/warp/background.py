"""The sky of a tile: its level and its noise, measured once on a coarse mesh (Bertin & Arnouts
1996, A&AS 117, 393), sources left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sep
from jaxtyping import Bool, Float32
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter, maximum_filter, median_filter

MESH = 128
STRIP = 8 * MESH
# Nodes beyond a part that have a say in its sky: of the median and of the spline.
REACH = 5 * MESH
SMOOTHING = 1.5
GROWTH = 2
THRESHOLD = 3.0
ENOUGH = 2**13

Image = Float32[np.ndarray, "y x"]


@dataclass(frozen=True)
class Background:
    """Level and 1σ noise of the sky at the nodes of a mesh, in a tile's own units.

    first_row: of the tile, where the mesh begins.
    """

    level: Float32[np.ndarray, "row column"]
    noise: Float32[np.ndarray, "row column"]
    first_row: int = 0

    def section(self, rows: slice, columns: slice) -> tuple[Image, Image]:
        """Level and noise of a part of the tile."""
        on_mesh = slice(rows.start - self.first_row, rows.stop - self.first_row)
        return (
            _interpolate(self.level, on_mesh, columns),
            _interpolate(self.noise, on_mesh, columns),
        )


def background_rows(rows: slice, height: int) -> slice:
    """The rows of a tile that tell the sky of `rows`: whole strips, so that it is the same
    whichever rows are asked for."""
    first = max(rows.start - REACH, 0) // STRIP * STRIP
    return slice(first, min(-(-(rows.stop + REACH) // STRIP) * STRIP, height))


def measure_background(
    read: Callable[[slice, slice], tuple[Image, Bool[np.ndarray, "y x"]]], rows: slice, width: int
) -> Background:
    """Measure the sky of some rows of a tile, strip by strip.

    read: gives the flux and the bad pixels of a part of the tile. rows: as `background_rows`
    gives them.
    """
    level, noise = [], []
    for first in range(rows.start, rows.stop, STRIP):
        flux, bad = read(slice(first, min(first + STRIP, rows.stop)), slice(0, width))
        strip_level, strip_noise = _measure_strip(flux, bad)
        level.append(strip_level)
        noise.append(strip_noise)
    # A median over neighbours takes out the mesh squares that a bright source spoiled.
    smooth = [median_filter(np.concatenate(m), 3, mode="nearest") for m in (level, noise)]
    return Background(smooth[0], smooth[1], rows.start)


def _source_mask(flux: Image, bad: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Pixels of sources: 3σ above the sky on the smoothed image, and 2 px around.

    σ is the smoothed image's own scatter.
    """
    level = np.float32(sky_level(flux[~bad]))
    smooth = gaussian_filter(np.where(bad, np.float32(0), flux - level), SMOOTHING, truncate=2.5)
    sigma = robust_scatter(smooth[~bad]) if not bad.all() else 0.0
    return maximum_filter(smooth > THRESHOLD * sigma, 2 * GROWTH + 1)


def robust_scatter(values: Float32[np.ndarray, " value"]) -> float:
    """1σ from the median absolute deviation, of at most 2¹³ values; NaN of nothing."""
    if not values.size:
        return float("nan")
    few = values[:: -(-values.size // ENOUGH)]
    return float(1.4826 * np.median(np.abs(few - np.median(few))))


def sky_level(values: Float32[np.ndarray, " value"]) -> float:
    """Median of at most 2¹³ values; NaN of nothing."""
    return float(np.median(values[:: -(-values.size // ENOUGH)])) if values.size else float("nan")


def few_of(
    values: Float32[np.ndarray, "y x"], where: Bool[np.ndarray, "y x"]
) -> Float32[np.ndarray, " value"]:
    """The values `where` it holds, of at most 2¹⁵ pixels all over the image: enough for its sky."""
    step = -(-values.size // (4 * ENOUGH))
    return values.ravel()[::step][where.ravel()[::step]]


def _measure_strip(flux: Image, bad: Bool[np.ndarray, "y x"]) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(-(-size // MESH) for size in flux.shape)
    good = flux[~bad]
    # sep needs numbers of about unit size: maggies are 1e-12.
    unit = robust_scatter(good) or 1.0
    if not np.isfinite(unit):
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    centre = np.median(good)
    clean = np.where(bad, np.float32(0), (flux - centre) / unit).astype(np.float32)
    first = sep.Background(clean, mask=bad, bw=MESH, bh=MESH)
    sources = _source_mask((clean - first.back()) / max(first.globalrms, 1e-6), bad)
    masked = bad | sources if not (bad | sources).all() else bad
    sky = sep.Background(clean, mask=masked, bw=MESH, bh=MESH, fw=1, fh=1)
    y, x = (np.minimum(np.arange(n) * MESH + MESH // 2, size - 1) for n, size in
            zip(shape, flux.shape, strict=True))  # fmt: skip
    at = np.ix_(y, x)
    return sky.back()[at] * unit + centre, sky.rms()[at] * unit


def _interpolate(mesh: Float32[np.ndarray, "row column"], rows: slice, columns: slice) -> Image:
    # Beyond the outermost nodes the sky stays as it is there.
    padded = np.pad(mesh.astype(float), 1, mode="edge")
    nodes = [(np.arange(size) - 0.5) * MESH - 0.5 for size in padded.shape]
    order = [min(3, size - 1) for size in padded.shape]
    spline = RectBivariateSpline(*nodes, padded, kx=order[0], ky=order[1], s=0)
    y, x = (np.arange(part.start, part.stop) for part in (rows, columns))
    clipped = [np.clip(a, n[0], n[-1]) for a, n in zip((y, x), nodes, strict=True)]
    return np.maximum(spline(*clipped), mesh.min()).astype(np.float32)
