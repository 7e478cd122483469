"""`reproject`'s resampling in place of our own, for comparison (`warp.kernel: bicubic | exact`)."""

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float32, Float64, UInt8
from scipy.ndimage import distance_transform_edt

from jaisp.store.layout import UNUSABLE
from jaisp.warp.kernel import Resampled, nearest, spread
from jaisp.warp.pixel_map import PixelMap

REACH = 3


def by_reproject(
    flux: Float32[np.ndarray, "v u"],
    flags: UInt8[np.ndarray, "v u"],
    window: WCS,
    output: WCS,
    positions: PixelMap,
    origin: tuple[int, int],
    ours: Resampled,
    unit: float,
    kernel: str,
) -> Resampled:
    """`ours` with `reproject`'s flux, missing wherever a bad pixel is near.

    flux, flags: a part of the tile from pixel `origin` (row, column) on; window: its WCS.
    """
    from reproject import reproject_exact, reproject_interp

    shape = ours.flux.shape
    clean = _filled(flux)
    if kernel == "exact":
        found, _ = reproject_exact((clean, window), output, shape_out=shape, parallel=False)
    else:
        found, _ = reproject_interp(
            (clean, window), output, shape_out=shape, order="bicubic", roundtrip_coords=False
        )
    x, y, area = positions.values()
    near = nearest(spread(flags, REACH), x - origin[1], y - origin[0]) | ours.flags
    usable = (near & np.uint8(UNUSABLE)) == 0
    scaled = np.where(usable, found * area * unit, np.nan).astype(np.float32)
    noise = np.where(usable, ours.noise, np.float32(np.nan))
    return Resampled(scaled, noise, near)


def _filled(flux: Float32[np.ndarray, "v u"]) -> Float64[np.ndarray, "v u"]:
    """Missing pixels with their nearest neighbour's flux: a spline would ring about a zero."""
    missing = ~np.isfinite(flux)
    if not missing.any() or missing.all():
        return np.nan_to_num(flux).astype(float)
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return flux[tuple(nearest)].astype(float)
