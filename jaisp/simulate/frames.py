"""Where each tile lies: its tangent point, rotation and distortion, as a FITS header."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from jaxtyping import Bool, Float

from jaisp.config.geometry import Region
from jaisp.config.simulate import SimulateConfig
from jaisp.errors import UserError
from jaisp.simulate.catalogue import Catalogue, from_plane
from jaisp.simulate.instruments import Instrument
from jaisp.simulate.seeds import generator

BORDER_PIXELS = 24  # beyond what covers the region: room for the distortion and a dead rim
LARGEST_SIDE = 8000  # pixels; a band of such a tile takes about 1.5 GB while it is made
FIRST = "00-00-00"  # the tile that has a dead rim
TANGENT_OFFSET = 0.1  # of the tile's side, from its middle
DISTORTION_PIXELS = 1.5  # at the tile's edge, per term


@dataclass(frozen=True)
class Frame:
    """One tile's piece of sky, the same for all bands of its survey."""

    id: str
    header: fits.Header
    shape: tuple[int, int]  # y, x
    has_dead_rim: bool
    astrometry: float  # rms of its offset, over the config's

    @property
    def wcs(self) -> WCS:
        """The tile's exact WCS."""
        return WCS(self.header)


def region_centre(region: Region) -> SkyCoord:
    """The tangent point of a region."""
    return SkyCoord(region.ra, region.dec, unit="deg")


def region_arcsec(region: Region) -> np.ndarray:
    """Width and height of a region."""
    return 60.0 * np.array([region.width_arcmin, region.height_arcmin])


def reach_arcsec(simulate: SimulateConfig, region: Region) -> tuple[float, float]:
    """Width and height of the rectangle that holds all tiles of a region, and a little more."""
    size = region_arcsec(region)
    tile = _tile_arcsec(simulate, size)
    rim = tile.sum() * np.sin(np.radians(simulate.rotation_deg)) + 40.0
    width, height = size + rim
    return float(width), float(height)


def inside(
    region: Region, size_arcsec: tuple[float, float], catalogue: Catalogue
) -> Bool[np.ndarray, " source"]:
    """Which sources lie in a rectangle on the tangent plane of a region."""
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval = [region.ra, region.dec]
    plane.wcs.cdelt = [1.0 / 3600.0, 1.0 / 3600.0]
    east, north = plane.wcs_world2pix(catalogue.ra, catalogue.dec, 1)  # CRPIX is 0
    return (np.abs(east) < size_arcsec[0] / 2) & (np.abs(north) < size_arcsec[1] / 2)


def frames_of(
    simulate: SimulateConfig, survey: str, instrument: Instrument, number: int, region: Region
) -> Iterator[Frame]:
    """The tiles of one survey over one region (the `number`-th).

    Raises UserError when tiles would be too large to hold in memory.
    """
    size, centre = region_arcsec(region), region_centre(region)
    width, height = _tile_arcsec(simulate, size)
    side = simulate.tiles_per_side
    for row in range(side):
        for column in range(side):
            name = f"{number:02d}-{row:02d}-{column:02d}"
            rng = generator(simulate.seed, "frame", survey, name)
            turn = np.radians(rng.uniform(-1.0, 1.0) * simulate.rotation_deg)
            cos, sin = np.cos(turn), abs(np.sin(turn))
            needed = np.array([height * cos + width * sin, width * cos + height * sin])
            pixels = 3 * np.ceil(needed / instrument.pixel_arcsec / 3) + 2 * BORDER_PIXELS
            shape = (int(pixels[0]), int(pixels[1]))
            if max(shape) > LARGEST_SIDE:
                raise UserError(
                    f"simulate.tiles_per_side: tiles of {survey} would be {max(shape)} pixels "
                    f"wide; choose at least {int(np.ceil(side * max(shape) / LARGEST_SIDE)) + 1}"
                )
            step = np.array([width, height]) - simulate.overlap_arcsec
            west, north = -size / 2 + np.array([width, height]) / 2 + step * (column, row)
            middle = from_plane(centre, np.array([-west]), np.array([north]))[0]
            header = _header(middle, turn, shape, instrument, rng)
            yield Frame(name, header, shape, name == FIRST, instrument.astrometry)


def sources_on(
    frame: Frame, catalogue: Catalogue, margin_arcsec: float = 20.0
) -> tuple[Catalogue, Float[np.ndarray, "source 2"], Float[np.ndarray, "source 2 2"]]:
    """The sources on a tile: their rows, their pixels (x, y from 0), and the local map.

    The map takes offsets in arcsec (east, north) at a source to pixels.
    """
    wcs = frame.wcs
    margin = margin_arcsec / (3600.0 * abs(frame.header["CD2_2"]))
    # Without the distortion first: far off the tile its inverse doesn't converge.
    x, y = wcs.wcs_world2pix(catalogue.ra, catalogue.dec, 0)
    height, width = frame.shape
    near = (x > -margin) & (x < width + margin) & (y > -margin) & (y < height + margin)
    seen = catalogue[near]
    if len(seen) == 0:
        return seen, np.empty((0, 2)), np.empty((0, 2, 2))
    x, y = wcs.all_world2pix(seen.ra, seen.dec, 0, tolerance=1e-7)
    return seen, np.stack([x, y], axis=1), np.linalg.inv(_arcsec_per_pixel(wcs, x, y))


def _arcsec_per_pixel(wcs: WCS, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d(east, north) / d(x, y) at each pixel, by differences over one pixel."""
    columns = []
    for dx, dy in ((0.5, 0.0), (0.0, 0.5)):
        ra_after, dec_after = wcs.all_pix2world(x + dx, y + dy, 0)
        ra_before, dec_before = wcs.all_pix2world(x - dx, y - dy, 0)
        east = (ra_after - ra_before + 180.0) % 360.0 - 180.0
        east *= np.cos(np.radians(0.5 * (dec_after + dec_before)))
        columns.append(np.stack([east, dec_after - dec_before], axis=-1))
    return 3600.0 * np.stack(columns, axis=-1)


def _tile_arcsec(simulate: SimulateConfig, size: np.ndarray) -> np.ndarray:
    """Width and height that tiles need to cover a region with the wanted overlap."""
    side = simulate.tiles_per_side
    return (size + (side - 1) * simulate.overlap_arcsec) / side


def _header(
    middle: SkyCoord,
    turn: float,
    shape: tuple[int, int],
    instrument: Instrument,
    rng: np.random.Generator,
) -> fits.Header:
    """A TAN or TAN-SIP header (Shupe et al. 2005) with `middle` at the middle of the array."""
    offset = rng.uniform(-1.0, 1.0, 2) * TANGENT_OFFSET * min(shape) * instrument.pixel_arcsec
    tangent = from_plane(middle, offset[:1], offset[1:])[0]
    scale = instrument.pixel_arcsec / 3600.0
    kind = "TAN-SIP" if instrument.distorted else "TAN"
    header = fits.Header()
    header["RADESYS"] = "ICRS"
    header["CTYPE1"], header["CTYPE2"] = f"RA---{kind}", f"DEC--{kind}"
    header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
    header["CRVAL1"], header["CRVAL2"] = tangent.ra.deg, tangent.dec.deg
    header["CRPIX1"], header["CRPIX2"] = 0.0, 0.0
    header["CD1_1"], header["CD1_2"] = -scale * np.cos(turn), scale * np.sin(turn)
    header["CD2_1"], header["CD2_2"] = scale * np.sin(turn), scale * np.cos(turn)
    place = WCS(header).wcs_world2pix(middle.ra.deg, middle.dec.deg, 1)
    for axis, (pixel, length) in enumerate(zip(place, shape[::-1], strict=True), start=1):
        # The middle falls on no particular point of a pixel.
        header[f"CRPIX{axis}"] = 0.5 * (length + 1) + rng.uniform(-0.5, 0.5) - float(pixel)
    if instrument.distorted:
        _add_distortion(header, max(shape) / 2, rng)
    return header


def _add_distortion(header: fits.Header, half_side: float, rng: np.random.Generator) -> None:
    """Smooth shifts of a pixel or two across the tile: quadratic and cubic SIP terms."""
    for axis in "AB":
        header[f"{axis}_ORDER"] = 3
        for i in range(4):
            for j in range(4 - i):
                if i + j >= 2:
                    size = DISTORTION_PIXELS / (i + j) * half_side ** -(i + j)
                    header[f"{axis}_{i}_{j}"] = rng.uniform(-1.0, 1.0) * size
