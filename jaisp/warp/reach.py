"""Which patches of a cell a tile may reach, and which part of the tile they need."""

from collections.abc import Sequence

import numpy as np
from astropy.coordinates import angular_separation

from jaisp.archives.tile import Tile
from jaisp.sky import Cell, footprint, plane_wcs
from jaisp.warp.pixel_map import sky_to_pixel
from jaisp.warp.tile import TileReader

# Points along a side of an outline, and pixels around it: for the kernel, and for what the
# outline bends between the points.
OUTLINE_POINTS = 33
HALO = 16


def tiles_near(tiles: Sequence[Tile], cell: Cell) -> list[Tile]:
    """The tiles that may reach a cell, by their footprints, and those of which none is known."""
    unknown = (np.nan,) * 3
    ra, dec, reach = np.array([tile.footprint or unknown for tile in tiles]).reshape(-1, 3).T
    # Most tiles of a wide survey are far away: one distance tells, of all of them at once.
    away = angular_separation(*np.radians([cell.ra, cell.dec]), *np.radians([ra, dec]))
    far = np.degrees(away) * 3600 > _extent(cell) + reach
    return [
        tile
        for tile, out in zip(tiles, far, strict=True)
        if tile.footprint is None or (not out and _rows_within(*tile.footprint, cell).size)
    ]


def _extent(cell: Cell) -> float:
    """Arcsec from a cell's middle beyond which none of it lies."""
    return float(np.hypot(*cell.centres.T).max() + 2 * cell.patch_arcsec)


def rows_near(reader: TileReader, cell: Cell) -> frozenset[int]:
    """Patches that a tile may reach: their circles and the tile's meet."""
    return frozenset(_rows_within(*footprint(reader.wcs, reader.shape), cell).tolist())


def part_needed(reader: TileReader, cell: Cell, near: frozenset[int]) -> tuple[slice, slice]:
    """The rows and columns of a tile that the patches `near` may need; they may lie beyond it."""
    centres = cell.centres[sorted(near)]
    half = cell.patch_arcsec / 2
    low, high = centres.min(axis=0) - half, centres.max(axis=0) + half
    plane = plane_wcs(cell, 1.0, float(low[0]), float(low[1]), (1, 1))
    # The map is smooth: it has its extremes on the outline.
    along = np.linspace(0, 1, OUTLINE_POINTS)
    first, last = np.zeros_like(along), np.ones_like(along)
    x = np.concatenate([along, along, first, last]) * (high[0] - low[0]) - 0.5
    y = np.concatenate([first, last, along, along]) * (high[1] - low[1]) - 0.5
    u, v = sky_to_pixel(reader.wcs, *plane.all_pix2world(x, y, 0))
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return slice(0, reader.shape[0]), slice(0, reader.shape[1])
    return _around(v), _around(u)


def geometry(reader: TileReader) -> str:
    """What tiles of one geometry share, so that their pixel map is made once."""
    wcs = reader.wcs
    if any(getattr(wcs, name) is not None for name in ("cpdis1", "cpdis2", "det2im1", "det2im2")):
        return f"{reader.tile.band} {reader.tile.id}"
    return f"{reader.shape} {wcs.to_header_string(relax=True)}"


def _around(pixels: np.ndarray) -> slice:
    return slice(int(np.floor(pixels.min())) - HALO, int(np.ceil(pixels.max())) + HALO)


def _rows_within(ra: float, dec: float, reach: float, cell: Cell) -> np.ndarray:
    away = angular_separation(*np.radians([*cell.sky_centres()]), *np.radians([ra, dec]))
    return np.flatnonzero(np.degrees(away) * 3600 <= reach + cell.patch_arcsec)
