"""Which patches a tile may reach, and which part of the tile they need."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.config import load_config
from jaisp.sky import cells, footprint, patch_wcs
from jaisp.warp.pixel_map import pixel_map
from jaisp.warp.reach import part_needed, rows_near, tiles_near
from tests.configs import CENTRE, small_config, write_config
from tests.warp.images import open_tile, tan_wcs, write_tile

GRID = 0.1


@pytest.fixture
def cell(tmp_path):
    sky = {"ra": CENTRE[0], "dec": CENTRE[1], "width_arcmin": 1.0, "height_arcmin": 0.8}
    (found,) = cells(load_config(write_config(tmp_path, small_config(sky=sky))))
    return found


def a_tile(path, angle, size=700, at=CENTRE):
    flux = np.ones((size, size), np.float32)
    wcs = tan_wcs(*at, pixel=0.1, size=size, angle=angle)
    return write_tile(path, flux, wcs, np.ones_like(flux))


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 137.0])
def test_the_part_needed_holds_what_every_patch_needs(tmp_path, cell, angle):
    reader = open_tile(a_tile(tmp_path / "t.fits", angle))
    near = rows_near(reader, cell)
    assert near == frozenset(range(len(cell)))
    rows, columns = part_needed(reader, cell, near)
    pixels = round(cell.patch_arcsec / GRID)
    for row in near:
        positions = pixel_map(patch_wcs(cell, row, GRID, pixels), (pixels, pixels), reader.wcs)
        left, right, low, high = positions.bounds
        assert columns.start + 5 <= left
        assert right <= columns.stop - 5
        assert rows.start + 5 <= low
        assert high <= rows.stop - 5
    extent = (rows.stop - rows.start) * (columns.stop - columns.start) * 0.1**2
    assert extent < 2.5 * len(cell) * cell.patch_arcsec**2


def test_a_tile_elsewhere_is_not_near(tmp_path, cell):
    tile = a_tile(tmp_path / "t.fits", 20.0)
    circle = footprint(open_tile(tile).wcs, (700, 700))
    assert circle[2] == pytest.approx(70 / 2**0.5, rel=1e-3)
    there = replace(tile, footprint=circle)
    beside = replace(tile, footprint=(CENTRE[0] + 0.02, CENTRE[1], circle[2]))
    away = [
        replace(tile, footprint=(CENTRE[0] + shift, CENTRE[1], circle[2]))
        for shift in (0.05, 60.0, 180.0)
    ]
    unknown = replace(tile, footprint=None)
    assert tiles_near([there, *away, unknown, beside], cell) == [there, unknown, beside]
    assert tiles_near(away, cell) == tiles_near([], cell) == []
