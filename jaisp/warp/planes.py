"""One tile's planes on one patch's pixels, in nJy a pixel."""

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float32
from scipy.ndimage import uniform_filter

from jaisp.warp.background import sky_level, source_mask
from jaisp.warp.kernel import measure_margin, resample
from jaisp.warp.overlap import Planes
from jaisp.warp.peers import by_reproject
from jaisp.warp.pixel_map import PixelMap
from jaisp.warp.tile import TileReader

NJY_ZEROPOINT = 31.4  # AB magnitude of 1 nJy
LANCZOS_ORDER = {"lanczos3": 3, "lanczos5": 5}
SKY_BOX_ARCSEC = 8.0
SMALLEST_SKY_SHARE = 0.05


def warp_tile(
    reader: TileReader,
    output: WCS,
    positions: PixelMap,
    kernel: str,
    deeper_than: Float32[np.ndarray, "y x"] | None = None,
) -> Planes | None:
    """Resample one tile once onto a patch; None when it gives the patch nothing.

    kernel: lanczos3, lanczos5, bicubic or exact (the last two by `reproject`). Interpolation
    keeps surface brightness, so that flux per pixel is scaled by the area of the output pixel;
    so is the noise, which is the tile's own, interpolated linearly: propagating it through the
    kernel would take correlated noise for less noise.
    """
    if not positions.reaches(reader.shape):
        return None
    margin = measure_margin(positions, reader.shape) * np.float32(reader.pixel_arcsec)
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
    )
    if kernel not in LANCZOS_ORDER:
        window = reader.wcs.slice(part)
        found = by_reproject(
            section.flux, section.flags, window, output, positions, origin, found, unit, kernel
        )
    return Planes(found.flux, found.noise, found.flags, margin)


def background_noise(
    flux: Float32[np.ndarray, "y x"], noise: Float32[np.ndarray, "y x"], grid_arcsec: float
) -> Float32[np.ndarray, "y x"]:
    """The noise with the sources' own share taken out.

    On sources it is replaced by the mean noise of the sky within 8″, or of the patch's sky, or,
    in a patch full of source, by the patch's lowest decile.
    """
    missing = ~np.isfinite(flux) | ~np.isfinite(noise)
    if missing.all():
        return noise
    # Not over the noise: a noise plane that includes sources would hide them.
    sources = source_mask(flux, missing)
    sky = ~missing & ~sources
    if not sky.any():
        lowest = np.float32(np.percentile(noise[~missing], 10))
        return np.where(missing, noise, np.minimum(noise, lowest))
    box = max(3, round(SKY_BOX_ARCSEC / grid_arcsec))
    share = uniform_filter(sky.astype(np.float32), box, mode="constant")
    total = uniform_filter(np.where(sky, noise, np.float32(0)), box, mode="constant")
    enough = share > SMALLEST_SKY_SHARE
    local = np.where(enough, total / np.where(enough, share, 1), sky_level(noise[sky]))
    return np.where(sources & ~missing, np.minimum(noise, local), noise).astype(np.float32)


def _part(low: float, high: float, size: int, halo: int) -> slice:
    """The rows or columns that a patch needs, no further than `halo` beyond the tile."""
    first, last = int(np.floor(low)), int(np.ceil(high))
    return slice(max(first, 0) - halo, min(last, size) + halo + 1)


def _unit_njy(zeropoint: float | None) -> float:
    """What one unit is in nJy; 1 when uncalibrated."""
    return 1.0 if zeropoint is None else 10 ** (0.4 * (NJY_ZEROPOINT - zeropoint))
