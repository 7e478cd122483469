"""A cell of sky with one tangent plane, and positions on it.

On a cell's plane, x grows with pixel columns (towards the west) and y with rows (towards the
north), both in arcsec from the tangent point (gnomonic projection: Calabretta & Greisen 2002,
A&A 395, 1077, section 5.1.3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Float

ARCSEC = np.pi / 180 / 3600
OUTLINE_POINTS = 9  # along each side of an image


class Cell:
    """A piece of sky with one tangent plane, and the patches that it holds.

    Parameters
    ----------
    name: `field`, `field0`… for several regions, or `o7p0001234` (HEALPix order 7, nested).
    ra, dec: tangent point, degrees.
    patch_arcsec: side of a patch.
    centres: patch centres on the plane, arcsec (x, y); or what works them out when they are first
        asked for, which planning a wide sky does only where the sky ends.
    whole: whether these are all patches of a HEALPix pixel: its name then tells them.
    moves: where each patch shows its sky, away from where it should, for tests of registration
        alone: arcsec (x, y) and a turn about its centre (radians, from +x to +y).
    """

    def __init__(
        self,
        name: str,
        ra: float,
        dec: float,
        patch_arcsec: float,
        centres: Float[np.ndarray, "patch 2"] | Callable[[], "Centres"],
        whole: bool = False,
        moves: Float[np.ndarray, "patch 3"] | None = None,
    ) -> None:
        self.name = name
        self.ra = ra
        self.dec = dec
        self.patch_arcsec = patch_arcsec
        self.whole = whole
        self.moves = moves
        self._centres = centres

    @property
    def centres(self) -> Float[np.ndarray, "patch 2"]:
        """Patch centres on the plane, arcsec (x, y)."""
        return self._centres().plane if callable(self._centres) else self._centres

    def __len__(self) -> int:
        return len(self.centres)

    def identity(self) -> list[Any]:
        """Name, tangent point and patches, as JSON values: what hashes know of a cell."""
        patches = "whole" if self.whole else np.round(self.centres, 6).tolist()
        return [self.name, round(self.ra, 9), round(self.dec, 9), patches]

    def sky_centres(self) -> tuple[Float[np.ndarray, " patch"], Float[np.ndarray, " patch"]]:
        """Right ascension and declination of the patch centres, degrees."""
        if callable(self._centres):
            return self._centres().ra, self._centres().dec
        return plane_radec(self, self.centres[:, 0], self.centres[:, 1])


class Centres(NamedTuple):
    """Where the patches of a cell lie: arcsec on its plane (x, y), and on the sky, degrees."""

    plane: Float[np.ndarray, "patch 2"]
    ra: Float[np.ndarray, " patch"]
    dec: Float[np.ndarray, " patch"]


def plane_wcs(cell: Cell, grid_arcsec: float, x0: float, y0: float, shape: tuple) -> WCS:
    """WCS of a window of the cell's plane, north up.

    x0, y0: plane position (arcsec) of the outer corner of the first pixel. shape: (rows,
    columns) of the window.
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [cell.ra, cell.dec]
    wcs.wcs.cdelt = [-grid_arcsec / 3600, grid_arcsec / 3600]
    # FITS counts pixels from 1 at their centres: the first pixel's outer corner is at 0.5.
    wcs.wcs.crpix = [0.5 - x0 / grid_arcsec, 0.5 - y0 / grid_arcsec]
    wcs.wcs.radesys = "ICRS"
    wcs.array_shape = tuple(shape)
    wcs.wcs.set()
    return wcs


def given_wcs(
    shape: tuple[int, int], ra: float, dec: float, pixel_arcsec: float, rotation_deg: float = 0.0
) -> WCS:
    """TAN with the image's centre at ra, dec; rotation_deg: position angle of +y, east of north."""
    angle = np.radians(rotation_deg)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = (pixel_arcsec / 3600) * np.array(
        [[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def footprint(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float, float]:
    """A circle around an image of `shape` (rows, columns): centre (ICRS degrees), radius (arcsec).

    NaN where the WCS leads to no sky.
    """
    rows, columns = shape
    y, x = np.meshgrid(
        np.linspace(-0.5, rows - 0.5, OUTLINE_POINTS),
        np.linspace(-0.5, columns - 0.5, OUTLINE_POINTS),
    )
    sky = wcs.pixel_to_world(x.ravel(), y.ravel()).icrs
    centre = wcs.pixel_to_world((columns - 1) / 2, (rows - 1) / 2).icrs
    away = sky.separation(centre).arcsec
    reach = float(np.nanmax(away)) if np.isfinite(away).any() else float("nan")
    return float(centre.ra.deg), float(centre.dec.deg), reach


def patch_wcs(cell: Cell, row: int, grid_arcsec: float, pixels: int) -> WCS:
    """WCS of one patch's own pixels (`pixels` × `pixels`), north up on the cell's plane."""
    x, y = cell.centres[row]
    half = pixels * grid_arcsec / 2
    wcs = plane_wcs(cell, grid_arcsec, x - half, y - half, (pixels, pixels))
    return wcs if cell.moves is None else _moved(wcs, cell.moves[row], cell.centres[row])


def _moved(wcs: WCS, move: Float[np.ndarray, " 3"], centre: Float[np.ndarray, " 2"]) -> WCS:
    """The WCS of a patch whose content appears at dx, dy from where it should, and turned.

    What lies at p from the patch's centre appears at R p + d, so that the pixel at q from it shows
    the sky at R⁻¹ (q − d).
    """
    dx, dy, angle = move
    grid_arcsec = wcs.wcs.cdelt[1] * 3600
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = (np.array(wcs.array_shape)[::-1] + 1) / 2  # FITS counts from 1
    wcs.wcs.crpix = middle + (np.array([dx, dy]) - turn @ centre) / grid_arcsec
    wcs.wcs.pc = turn.T
    # x grows to the west: CDELT's sign turns the rotation of x into that of right ascension.
    wcs.wcs.set()
    return wcs


def plane_xy(cell: Cell, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plane position (arcsec) of sky positions (degrees, ICRS); NaN behind the tangent point."""
    x, y = plane_wcs(cell, 1.0, 0.0, 0.0, (1, 1)).world_to_pixel_values(ra, dec)
    return np.asarray(x + 0.5), np.asarray(y + 0.5)


def plane_radec(cell: Cell, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sky position (degrees, ICRS) of plane positions (arcsec)."""
    wcs = plane_wcs(cell, 1.0, 0.0, 0.0, (1, 1))
    ra, dec = wcs.pixel_to_world_values(x - 0.5, y - 0.5)
    return np.asarray(ra), np.asarray(dec)


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> Float[np.ndarray, "*position 3"]:
    """Unit vectors of positions, degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
