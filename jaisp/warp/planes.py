"""One tile's planes on one patch's pixels, in nJy a pixel."""

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float32

from jaisp.warp.kernel import measure_margin, resample
from jaisp.warp.overlap import Planes
from jaisp.warp.peers import by_reproject
from jaisp.warp.pixel_map import PixelMap
from jaisp.warp.tile import TileReader

NJY_ZEROPOINT = 31.4  # AB magnitude of 1 nJy
LANCZOS_ORDER = {"lanczos3": 3, "lanczos5": 5}


def warp_tile(
    reader: TileReader,
    output: WCS,
    positions: PixelMap,
    kernel: str,
    deeper_than: Float32[np.ndarray, "y x"] | None = None,
    threads: int = 1,
) -> Planes | None:
    """Resample one tile once onto a patch; None when it gives the patch nothing.

    kernel: lanczos3, lanczos5, bicubic or exact (the last two by `reproject`). Interpolation
    keeps surface brightness, so that flux per pixel is scaled by the area of the output pixel;
    so is the noise, which is the tile's own, interpolated linearly: propagating it through the
    kernel would take correlated noise for less noise.
    """
    if not positions.reaches(reader.shape):
        return None
    margin = measure_margin(positions, reader.shape, reader.pixel_arcsec)
    wanted = margin >= 0
    if deeper_than is not None:
        wanted &= margin > deeper_than
    if not wanted.any():
        return None
    order = LANCZOS_ORDER.get(kernel, 3)
    left, right, low, high = positions.bounds
    part = (
        _part(low, high, reader.shape[0], order + 1),
        _part(left, right, reader.shape[1], order + 1),
    )
    origin = part[0].start, part[1].start
    section = reader.section(*part)
    unit = _unit_njy(reader.zeropoint)
    found = resample(
        section.flux,
        section.noise,
        section.flags,
        positions,
        order=order,
        unit=unit,
        origin=origin,
        wanted=wanted,
        threads=threads,
    )
    if kernel not in LANCZOS_ORDER:
        window = reader.wcs.slice(part)
        found = by_reproject(
            section.flux, section.flags, window, output, positions, origin, found, unit, kernel
        )
    return Planes(found.flux, found.noise, found.flags, margin)


def _part(low: float, high: float, size: int, halo: int) -> slice:
    """The rows or columns that a patch needs, no further than `halo` beyond the tile."""
    first, last = int(np.floor(low)), int(np.ceil(high))
    return slice(max(first, 0) - halo, min(last, size) + halo + 1)


def _unit_njy(zeropoint: float | None) -> float:
    """What one unit is in nJy; 1 when uncalibrated."""
    return 1.0 if zeropoint is None else 10 ** (0.4 * (NJY_ZEROPOINT - zeropoint))
