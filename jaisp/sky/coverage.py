"""Which sky a config asks for: rectangles, or a MOC."""

from functools import cache

import numpy as np
from astropy.coordinates import SkyCoord
from astropy_healpix import HEALPix
from jaxtyping import Bool, Float

from jaisp.config import Config
from jaisp.config.geometry import Moc, Region
from jaisp.errors import UserError
from jaisp.sky.plane import ARCSEC, Cell, plane_radec, plane_xy, unit_vectors

MOST_DISTANT = np.radians(80.0)  # from a rectangle's centre, of pixels that it surely holds


class Coverage:
    """Which sky the config asks for: rectangles or a MOC."""

    def __init__(self, config: Config) -> None:
        self.regions: list[Region] = []
        self.moc = None
        if not isinstance(config.sky, Moc):
            self.regions = config.sky
            return
        from mocpy import MOC

        path = config.data / config.sky.moc
        try:
            self.moc = MOC.from_fits(path)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"sky.moc: {path} can't be read as a MOC ({reason})") from None

    def candidates(self, healpix: HEALPix) -> list[int]:
        """HEALPix pixels that may hold a patch of this sky."""
        if self.moc is not None:
            order = int(np.log2(healpix.nside))
            return [int(i) for i in self.moc.degrade_to_order(order).flatten()]
        found: set[int] = set()
        for region in self.regions:
            # Sample the rectangle finer than a pixel: no pixel that holds a patch is missed
            # by more than an empty candidate's cost.
            step = healpix.pixel_resolution.to_value("arcmin") / 4
            x = _samples(region.width_arcmin, step) * 60
            y = _samples(region.height_arcmin, step) * 60
            plane = Cell("", region.ra, region.dec, 1.0, np.zeros((0, 2)))
            grid_x, grid_y = np.meshgrid(x, y)
            ra, dec = plane_radec(plane, grid_x.ravel(), grid_y.ravel())
            sky = SkyCoord(ra, dec, unit="deg")
            found |= {int(i) for i in healpix.skycoord_to_healpix(sky)}
        return sorted(found)

    def holds_pixels(self, healpix: HEALPix, indices: list[int]) -> list[bool]:
        """Whether each HEALPix pixel certainly lies in this sky as a whole."""
        if self.moc is not None:
            order = int(np.log2(healpix.nside))
            missing = {int(i) for i in self.moc.complement().degrade_to_order(order).flatten()}
            return [index not in missing for index in indices]
        reach = pixel_reach(int(np.log2(healpix.nside)))
        middles = healpix.healpix_to_skycoord(indices)
        found = np.zeros(len(indices), bool)
        for region in self.regions:
            centre = SkyCoord(region.ra, region.dec, unit="deg")
            farthest = middles.separation(centre).rad + reach * ARCSEC
            # The plane stretches by sec² of the distance from its tangent point, at most.
            near = np.flatnonzero(farthest < MOST_DISTANT)
            margin = reach / np.cos(farthest[near]) ** 2
            ra, dec = middles.ra.deg[near], middles.dec.deg[near]
            found[near] |= in_region(region, ra, dec, margin_arcsec=-margin)
        return found.tolist()

    def holds(self, ra: np.ndarray, dec: np.ndarray) -> Bool[np.ndarray, " patch"]:
        """Whether each position lies in this sky."""
        if self.moc is not None:
            return np.asarray(self.moc.contains_skycoords(SkyCoord(ra, dec, unit="deg")))
        return np.logical_or.reduce([in_region(region, ra, dec) for region in self.regions])


def _samples(width: float, step: float) -> np.ndarray:
    return np.linspace(-width / 2, width / 2, int(np.ceil(width / step)) + 1)


def in_region(
    region: Region,
    ra: np.ndarray,
    dec: np.ndarray,
    margin_arcsec: float | Float[np.ndarray, " position"] = 0.0,
) -> Bool[np.ndarray, " position"]:
    """Whether positions (degrees) lie in a rectangle grown by `margin_arcsec` on each side.

    A negative margin shrinks it.
    """
    plane = Cell("", region.ra, region.dec, 1.0, np.zeros((0, 2)))
    with np.errstate(invalid="ignore"):
        x, y = plane_xy(plane, ra, dec)
        in_x = np.abs(x) <= region.width_arcmin * 30 + margin_arcsec
        in_y = np.abs(y) <= region.height_arcmin * 30 + margin_arcsec
    # The gnomonic plane shows the far side of the sky too.
    centre = unit_vectors(np.asarray(region.ra), np.asarray(region.dec))
    near = unit_vectors(ra, dec) @ centre > np.cos(np.radians(89.0))
    return in_x & in_y & near


@cache
def pixel_reach(order: int) -> float:
    """Arcsec within which a pixel lies around its middle: at most about its resolution."""
    return float(HEALPix(nside=2**order).pixel_resolution.to_value("arcsec"))
