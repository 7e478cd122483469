"""One tile's planes on one patch's pixels, in nJy a pixel, and several tiles made one."""

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float32, Float64, Int, UInt8
from scipy.ndimage import distance_transform_edt, uniform_filter

from jaisp.store.layout import UNUSABLE, Flag
from jaisp.warp.background import sky_level, source_mask
from jaisp.warp.pixel_map import PixelMap
from jaisp.warp.tile import Section, TileReader

NJY_ZEROPOINT = 31.4  # AB magnitude of 1 nJy
LANCZOS_ORDER = {"lanczos3": 3, "lanczos5": 5}
REPROJECT_REACH = 3
SKY_BOX_ARCSEC = 8.0
SMALLEST_SKY_SHARE = 0.05


@dataclass(frozen=True)
class Planes:
    """One band of one patch.

    flux, noise: nJy a pixel (or the tile's units a pixel when uncalibrated); NaN where missing.
    flags: bits of `jaisp.store.layout.Flag`. margin: arcsec to the tile's nearest edge, negative
    outside.
    """

    flux: Float32[np.ndarray, "y x"]
    noise: Float32[np.ndarray, "y x"]
    flags: UInt8[np.ndarray, "y x"]
    margin: Float64[np.ndarray, "y x"]


def warp_tile(reader: TileReader, output: WCS, positions: PixelMap, kernel: str) -> Planes | None:
    """Resample one tile once onto a patch; None when it doesn't reach the patch.

    kernel: lanczos3, lanczos5, bicubic or exact (the last two by `reproject`). Interpolation
    keeps surface brightness, so that flux per pixel is scaled by the area of the output pixel;
    so is the noise, which is the tile's own, interpolated linearly: propagating it through the
    kernel would take correlated noise for less noise.
    """
    if not (positions.margin >= 0).any():
        return None
    halo = LANCZOS_ORDER.get(kernel, REPROJECT_REACH) + 1
    part = (
        _part(positions.y, reader.shape[0], halo),
        _part(positions.x, reader.shape[1], halo),
    )
    section = reader.section(*part)
    x, y = positions.x - part[1].start, positions.y - part[0].start
    if kernel in LANCZOS_ORDER:
        from jaisp.warp.kernel import lanczos

        flux, flags = lanczos(section.flux, section.flags, x, y, LANCZOS_ORDER[kernel])
    else:
        window = reader.wcs.slice(part)
        flux, flags = _reproject(section, window, output, x, y, kernel)
    from jaisp.warp.kernel import bilinear

    scale = positions.area * _unit_njy(reader.zeropoint)
    flux = (flux * scale).astype(np.float32)
    noise = (bilinear(section.noise, x, y) * scale).astype(np.float32)
    flags[np.isfinite(flux) & ~np.isfinite(noise)] |= np.uint8(Flag.BAD)
    unusable = (flags & np.uint8(UNUSABLE)) != 0
    flux[unusable] = np.nan
    noise[unusable] = np.nan
    return Planes(flux, noise, flags, positions.margin * reader.pixel_arcsec)


def combine(tiles: list[Planes]) -> tuple[Planes, Int[np.ndarray, "y x"]]:
    """Take each pixel from the tile in which it lies deepest, among those where it is valid.

    Returns the planes, and which tile each pixel is from (-1: no valid one).
    """
    shape = tiles[0].flux.shape
    result = Planes(
        np.full(shape, np.nan, np.float32),
        np.full(shape, np.nan, np.float32),
        np.full(shape, Flag.EDGE, np.uint8),
        np.full(shape, -np.inf),
    )
    source = np.full(shape, -1)
    for number, tile in enumerate(tiles):
        valid = np.isfinite(tile.flux)
        held = source >= 0
        better = (valid & ~held) | ((valid == held) & (tile.margin > result.margin))
        for name in ("flux", "noise", "flags", "margin"):
            getattr(result, name)[better] = getattr(tile, name)[better]
        source[better & valid] = number
    return result, source


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


def _part(axis: Float64[np.ndarray, "y x"], size: int, halo: int) -> slice:
    """The rows or columns that a patch needs, no further than `halo` beyond the tile."""
    low, high = int(np.floor(np.nanmin(axis))), int(np.ceil(np.nanmax(axis)))
    return slice(max(low, 0) - halo, min(high, size) + halo + 1)


def _unit_njy(zeropoint: float | None) -> float:
    """What one unit is in nJy; 1 when uncalibrated."""
    return 1.0 if zeropoint is None else 10 ** (0.4 * (NJY_ZEROPOINT - zeropoint))


def _reproject(
    section: Section, window: WCS, output: WCS, x: np.ndarray, y: np.ndarray, kernel: str
) -> tuple[Float32[np.ndarray, "y x"], UInt8[np.ndarray, "y x"]]:
    """`reproject`'s bicubic or exact resampling; missing wherever a bad pixel is near."""
    from reproject import reproject_exact, reproject_interp

    from jaisp.warp.kernel import nearest, spread

    clean = _filled(section.flux)
    if kernel == "exact":
        flux, _ = reproject_exact((clean, window), output, shape_out=x.shape, parallel=False)
    else:
        flux, _ = reproject_interp(
            (clean, window), output, shape_out=x.shape, order="bicubic", roundtrip_coords=False
        )
    flags = nearest(spread(section.flags, REPROJECT_REACH), x, y)
    return flux.astype(np.float32), flags


def _filled(flux: Float32[np.ndarray, "v u"]) -> Float64[np.ndarray, "v u"]:
    """Missing pixels with their nearest neighbour's flux: a spline would ring about a zero."""
    missing = ~np.isfinite(flux)
    if not missing.any() or missing.all():
        return np.nan_to_num(flux).astype(float)
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return flux[tuple(nearest)].astype(float)
