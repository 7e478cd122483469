"""Small images of known stars, and tiles made of them."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.archives.tile import Plane, Tile
from jaisp.sky import Cell, patch_wcs
from jaisp.warp.kernel import resample
from jaisp.warp.pixel_map import given_positions
from jaisp.warp.tile import TileReader

RA, DEC = 150.0, 2.0
OPENED: list[TileReader] = []


def cell_at(ra: float = RA, dec: float = DEC, patch_arcsec: float = 25.6) -> Cell:
    """A cell of one patch."""
    return Cell("field", ra, dec, patch_arcsec, np.zeros((1, 2)))


def patch_at(ra: float, dec: float, grid: float = 0.2, pixels: int = 128) -> WCS:
    """The WCS of one patch of `pixels` × `pixels` at ra, dec."""
    return patch_wcs(cell_at(ra, dec, grid * pixels), 0, grid, pixels)


def tan_wcs(
    ra: float = RA,
    dec: float = DEC,
    pixel: float = 0.2,
    size: int = 200,
    angle: float = 0.0,
    flipped: bool = False,
    projection: str = "TAN",
) -> WCS:
    """A WCS with its reference pixel at the centre of a `size` × `size` image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(size + 1) / 2] * 2
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    parity = 1 if flipped else -1
    wcs.wcs.cd = pixel / 3600 * np.array([[parity * c, s], [-parity * s, c]])
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def gaussians(
    shape: tuple[int, int], x: np.ndarray, y: np.ndarray, fwhm: float, flux: float = 1.0
) -> np.ndarray:
    """Gaussian stars at pixel positions x, y; fwhm in pixels."""
    sigma = fwhm / 2.3548
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    profile_x = np.exp(-((columns[None] - np.asarray(x)[:, None]) ** 2) / (2 * sigma**2))
    profile_y = np.exp(-((rows[None] - np.asarray(y)[:, None]) ** 2) / (2 * sigma**2))
    return flux / (2 * np.pi * sigma**2) * np.einsum("sy,sx->yx", profile_y, profile_x)


def write_tile(
    path: Path,
    flux: np.ndarray,
    wcs: WCS | None = None,
    noise: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> Tile:
    """A FITS file with these planes as HDUs 0, NOISE and MASK, and the tile that it is."""
    cards = fits.Header() if wcs is None else wcs.to_header(relax=True)
    cards.update(header or {})
    hdus = [fits.PrimaryHDU(flux, cards)]
    if noise is not None:
        hdus.append(fits.ImageHDU(noise, name="NOISE"))
    if mask is not None:
        hdus.append(fits.ImageHDU(mask, name="MASK"))
    fits.HDUList(hdus).writeto(path)
    return tile_of(path, has_noise=noise is not None, has_mask=mask is not None, **changes)


def tile_of(path: Path, has_noise: bool = True, has_mask: bool = False, **changes: Any) -> Tile:
    """A tile whose planes are the HDUs 0, NOISE and MASK of one file."""
    facts: dict[str, Any] = {
        "survey": "survey",
        "band": "r",
        "id": path.stem,
        "science": Plane(path, 0),
        "noise": Plane(path, "NOISE") if has_noise else None,
        "mask": Plane(path, "MASK") if has_mask else None,
        "psf": None,
        "noise_kind": "rms" if has_noise else "estimate",
        "bad_bits": None,
        "zeropoint": 31.4,
        "psf_fwhm_arcsec": 0.7,
        "psf_moffat_beta": None,
        "subtract_sky": False,
        "wcs": "header",
    }
    return Tile(**(facts | changes))


def open_tile(tile: Tile) -> TileReader:
    """A reader that is closed when the test ends."""
    OPENED.append(TileReader(tile))
    return OPENED[-1]


def lanczos(
    image: np.ndarray, flags: np.ndarray, x: np.ndarray, y: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flux and flags at positions x, y of an image of noise 1."""
    positions = given_positions(x, y, np.ones_like(x))
    found = resample(image, np.ones_like(image), flags, positions, order=order)
    return found.flux, found.flags


def centroid(stamp: np.ndarray, fwhm: float) -> np.ndarray:
    """Gaussian-weighted, iterated: unbiased for a Gaussian star."""
    sigma = fwhm / 2.3548
    y, x = np.mgrid[-9:10, -9:10].astype(float)
    centre = np.zeros(2)
    for _ in range(40):
        weight = stamp * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
        offset = np.array([(weight * (x - centre[0])).sum(), (weight * (y - centre[1])).sum()])
        centre += 2 * offset / weight.sum()
    return centre
