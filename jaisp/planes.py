"""Whether a tile's planes are images that belong together."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.archives.table import tile_planes
from jaisp.archives.tile import Plane, Tile
from jaisp.errors import TileError
from jaisp.sky import footprint, given_wcs
from jaisp.structure import opened


def verify_planes(tile: Tile) -> list[float] | None:
    """Each plane is an image of the science plane's shape, and the science plane has a WCS.

    Returns the image's footprint, where its WCS tells one.
    """
    shapes = {}
    circle = None
    for name, plane in tile_planes(tile).items():
        with opened(Path(plane.path)) as hdus:
            header = _image_header(hdus, plane, name)
            shapes[name] = (header["NAXIS1"], header["NAXIS2"])
            if name == "science":
                circle = _footprint(tile_wcs(tile, header, hdus), shapes[name][::-1])
    for name in ("noise", "mask"):
        if name in shapes and shapes[name] != shapes["science"]:
            raise TileError(f"{name} is {shapes[name]} pixels, the image {shapes['science']}")
    return circle


def tile_wcs(tile: Tile, header: fits.Header, hdus: fits.HDUList | None = None) -> WCS:
    """The celestial WCS of a tile's image: the config's, or its header's. Raises TileError."""
    if isinstance(tile.wcs, dict):
        return given_wcs((header["NAXIS2"], header["NAXIS1"]), **tile.wcs)
    wcs = WCS(header, hdus)
    if not wcs.has_celestial:
        raise TileError(
            f"{Path(tile.science.path).name}[{tile.science.hdu}] has no celestial WCS; give the "
            "image's `wcs: {ra, dec, pixel_arcsec, rotation_deg}`"
        )
    return wcs.celestial if wcs.naxis > 2 else wcs


def _footprint(wcs: WCS, shape: tuple[int, int]) -> list[float] | None:
    """A circle that holds the image, rounded outwards; None where its WCS tells none."""
    ra, dec, reach = footprint(wcs, shape)
    if not np.isfinite([ra, dec, reach]).all():
        return None
    return [round(ra, 5), round(dec, 5), float(np.ceil(reach)) + 1.0]


def _image_header(hdus: fits.HDUList, plane: Plane, name: str) -> fits.Header:
    file = Path(plane.path).name
    images = [
        str(hdu.name or i) for i, hdu in enumerate(hdus) if hdu.is_image and hdu.header["NAXIS"] > 1
    ]
    try:
        hdu = hdus[plane.hdu]
    except (KeyError, IndexError):
        offer = ", ".join(images) or "none"
        raise TileError(f"{name}: {file} has no HDU {plane.hdu!r} (images: {offer})") from None
    if not hdu.is_image or hdu.header["NAXIS"] < 2:
        offer = ", ".join(images) or "none"
        raise TileError(f"{name}: HDU {plane.hdu!r} of {file} holds no image (images: {offer})")
    depth = int(np.prod(hdu.shape[:-2]))
    if depth > 1 and plane.slice is None:
        raise TileError(f"{name}: {file}[{plane.hdu}] is a cube of {depth}; choose a `slice`")
    if (plane.slice or 0) >= depth:
        raise TileError(f"{name}: {file}[{plane.hdu}] has {depth} planes, none is {plane.slice}")
    return hdu.header
