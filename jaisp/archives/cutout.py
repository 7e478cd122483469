"""Parts of images, where whole ones are not needed: squares that a server cuts out, and rows."""

from dataclasses import dataclass

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord, UnitSphericalRepresentation
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from jaisp.archives.coverage import Outline, margins
from jaisp.sky import Cell

# Around the patches: what resampling reaches for, and stars for the PSF.
MARGIN_ARCSEC = 30.0
# A square with more of an image than this is not worth a file of its own.
WORTH = 0.8


@dataclass(frozen=True)
class Square:
    """A square of sky, north up: its centre, degrees, and its side, arcsec.

    share: the part of the image's area that it has.
    """

    ra: float
    dec: float
    width: float
    share: float


def cut(outline: Outline, sky: list[Cell]) -> Square | None:
    """The square of an image that holds all patches which touch it, with a margin.

    None where that is nearly the whole image, or where no patch touches it.
    """
    places = [_touching(outline, cell) for cell in sky]
    ra, dec = np.concatenate([np.stack(place) for place in places], axis=1)
    if not len(ra):
        return None
    corners = SkyCoord(*outline.corners.T, unit="deg")
    middle = SkyCoord(ra, dec, unit="deg").cartesian.mean()
    origin = SkyCoord(middle.represent_as(UnitSphericalRepresentation))
    x, y = _offsets(SkyCoord(ra, dec, unit="deg"), origin)
    x0, y0 = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    half = max(cell.patch_arcsec for cell in sky) / np.sqrt(2) + MARGIN_ARCSEC
    width = float(np.ceil(max(np.ptp(x), np.ptp(y)) + 2 * half))
    if outline.radius:
        area = np.pi * (outline.radius * 3600) ** 2
    else:
        area = _area(*_offsets(corners, origin))
    if width**2 >= WORTH * area:
        return None
    centre = origin.spherical_offsets_by(x0 * units.arcsec, y0 * units.arcsec)
    return Square(float(centre.ra.deg), float(centre.dec.deg), width, float(width**2 / area))


def cutout_address(address: str, template: str, part: Square, pixel_arcsec: float) -> str:
    """The address of a square of an image, by the config's template."""
    return address + template.format(
        ra=f"{part.ra:.6f}",
        dec=f"{part.dec:.6f}",
        degrees=f"{part.width / 3600:.6f}",
        arcmin=f"{part.width / 60:.4f}",
        arcsec=f"{part.width:g}",
        pixels=int(np.ceil(part.width / pixel_arcsec)),
    )


def _touching(outline: Outline, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the patches that touch an image: ra, dec, degrees."""
    touches = margins(outline, cell) > -cell.patch_arcsec / np.sqrt(2)
    ra, dec = cell.sky_centres()
    return ra[touches], dec[touches]


def _offsets(places: SkyCoord, origin: SkyCoord) -> tuple[np.ndarray, np.ndarray]:
    """East and north of an origin, arcsec."""
    east, north = origin.spherical_offsets_to(places)
    return np.atleast_1d(east.arcsec), np.atleast_1d(north.arcsec)


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Of a polygon, by its corners in turn."""
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def rows_needed(wcs: WCS, shape: tuple[int, int], sky: list[Cell]) -> tuple[int, int] | None:
    """The first and the last row + 1 of an image that hold all patches which touch it, with a
    margin; None where no patch does."""
    pixel = float(np.mean(proj_plane_pixel_scales(wcs))) * 3600
    low, high = shape[0], 0
    for cell in sky:
        half = cell.patch_arcsec / np.sqrt(2) / pixel
        x, y = wcs.world_to_pixel_values(*cell.sky_centres())
        touches = (np.abs(x - shape[1] / 2) < shape[1] / 2 + half) & (
            np.abs(y - shape[0] / 2) < shape[0] / 2 + half
        )
        if touches.any():
            reach = half + MARGIN_ARCSEC / pixel
            low = min(low, int(np.floor(y[touches].min() - reach)))
            high = max(high, int(np.ceil(y[touches].max() + reach)) + 1)
    low, high = max(low, 0), min(high, shape[0])
    return (low, high) if low < high else None
