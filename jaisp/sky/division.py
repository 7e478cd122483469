"""How sky is divided: into cells, and these into patches."""

from collections.abc import Iterator
from functools import lru_cache, partial

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix

from jaisp.config import Config
from jaisp.config.geometry import Moc, Region
from jaisp.errors import UserError
from jaisp.sky.coverage import Coverage, pixel_reach
from jaisp.sky.plane import Cell, Centres, plane_radec

ONE_CELL_ARCMIN = 25.0
HEALPIX_ORDER = 7
LOOKED_UP = 64  # cells of which it is asked at once which of their patches the sky holds


def cells(config: Config) -> list[Cell]:
    """The cells that the config's sky consists of, sorted by name.

    Rectangles up to 25′ are a cell each, with the plane at their centre; wider sky is cut along
    HEALPix pixels, and a patch belongs to the cell that holds its centre.
    """
    regions = [] if isinstance(config.sky, Moc) else config.sky
    narrow = bool(regions) and all(_is_narrow(region) for region in regions)
    if narrow and config.cell_order == "auto":
        names = ["field"] if len(regions) == 1 else [f"field{i}" for i in range(len(regions))]
        found = [
            _region_cell(n, r, config.patch.arcsec) for n, r in zip(names, regions, strict=True)
        ]
        return sorted(found, key=lambda cell: cell.name)
    order = HEALPIX_ORDER if config.cell_order == "auto" else config.cell_order
    return _healpix_cells(config, order)


def _is_narrow(region: Region) -> bool:
    return max(region.width_arcmin, region.height_arcmin) <= ONE_CELL_ARCMIN


def _region_cell(name: str, region: Region, patch_arcsec: float) -> Cell:
    """A rectangle as one cell: abutting patches, centred on the rectangle."""
    columns = max(1, round(region.width_arcmin * 60 / patch_arcsec))
    rows = max(1, round(region.height_arcmin * 60 / patch_arcsec))
    x = (np.arange(columns) - (columns - 1) / 2) * patch_arcsec
    y = (np.arange(rows) - (rows - 1) / 2) * patch_arcsec
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    centres = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    return Cell(name, region.ra, region.dec, patch_arcsec, centres)


def _healpix_cells(config: Config, order: int) -> list[Cell]:
    healpix = HEALPix(nside=2**order, order="nested", frame="icrs")
    coverage = Coverage(config)
    candidates = coverage.candidates(healpix)
    middles = healpix.healpix_to_skycoord(candidates)
    inside = coverage.holds_pixels(healpix, candidates)
    patch_arcsec = config.patch.arcsec
    found: list[Cell] = []
    cut: list[Cell] = []
    for index, ra, dec, whole in zip(
        candidates, middles.ra.deg.tolist(), middles.dec.deg.tolist(), inside, strict=True
    ):
        name = f"o{order}p{index:07d}"
        all_of_it = partial(_pixel_patches, order, index, ra, dec, patch_arcsec)
        (found if whole else cut).append(Cell(name, ra, dec, patch_arcsec, all_of_it, whole=True))
    found += _held_parts(coverage, cut)
    if not found:
        raise UserError("sky: holds no patch; give a larger region or a smaller patch.arcsec")
    return sorted(found, key=lambda cell: cell.name)


def _held_parts(coverage: Coverage, cut: list[Cell]) -> Iterator[Cell]:
    """Cells with those of their patches whose centres lie in the sky that is asked for."""
    # Positions of many cells are looked up at once: most of a look-up's time is its beginning.
    for first in range(0, len(cut), LOOKED_UP):
        some = cut[first : first + LOOKED_UP]
        sky = [cell.sky_centres() for cell in some]
        held = coverage.holds(*(np.concatenate(axis) for axis in zip(*sky, strict=True)))
        bounds = np.cumsum([len(cell) for cell in some])[:-1]
        for cell, own in zip(some, np.split(held, bounds), strict=True):
            if own.any():
                centres = cell.centres[own]
                whole = bool(own.all())
                yield Cell(cell.name, cell.ra, cell.dec, cell.patch_arcsec, centres, whole=whole)


# 30 MB at most: of a wide sky only the cells at hand are kept.
@lru_cache(maxsize=1024)
def _pixel_patches(order: int, index: int, ra: float, dec: float, patch_arcsec: float) -> Centres:
    """All patches whose centres lie in a HEALPix pixel, on the plane at its middle."""
    healpix = HEALPix(nside=2**order, order="nested")
    reach = int(np.ceil(pixel_reach(order) / patch_arcsec)) + 1
    steps = np.arange(-reach, reach + 1) * patch_arcsec
    y, x = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    lon, lat = plane_radec(Cell("", ra, dec, patch_arcsec, np.zeros((0, 2))), x, y)
    inside = healpix.lonlat_to_healpix(lon * u.deg, lat * u.deg) == index
    found = Centres(np.stack([x[inside], y[inside]], axis=1), lon[inside], lat[inside])
    for shared in found:
        shared.flags.writeable = False
    return found
