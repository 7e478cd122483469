"""Which tiles are needed for which patches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaisp.archives.coverage import Outline, margins, needed, read_outline
from jaisp.sky import Cell, plane_radec

SIDE = 50.0


@pytest.fixture(params=[(150.0, 2.0), (359.95, -60.0), (0.02, 85.0)])
def cell(request):
    axis = (np.arange(9) - 4) * SIDE
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return Cell("field", *request.param, SIDE, np.stack([x.ravel(), y.ravel()], axis=1))


def square(cell, x, y, half):
    """A square tile about a place on the cell's plane, arcsec."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + [x, y]
    return Outline(np.stack(plane_radec(cell, *corners.T), axis=1))


def test_margins_of_a_square(cell):
    found = margins(square(cell, 30, -20, 150), cell)
    inside = 150 - np.abs(cell.centres - [30, -20])
    expected = inside.min(axis=1)
    within = expected > 0
    assert found[within] == pytest.approx(expected[within], abs=0.05)
    assert (found[~within] <= 0.05).all()
    assert found[expected < -1].max() < 0


def test_margins_of_a_circle(cell):
    place = np.array([plane_radec(cell, np.array([40.0]), np.array([10.0]))])[0].T
    found = margins(Outline(place, 120 / 3600), cell)
    expected = 120 - np.hypot(*(cell.centres - [40, 10]).T)
    assert found == pytest.approx(expected, abs=0.05)


def test_either_way_round_a_polygon_is_the_same(cell):
    tile = square(cell, 0, 0, 120)
    other = Outline(tile.corners[::-1])
    assert margins(tile, cell) == pytest.approx(margins(other, cell))


def test_the_other_side_of_the_sky_is_outside(cell):
    ra, dec = (cell.ra + 180) % 360, -cell.dec
    corners = np.array([[ra, dec], [ra + 0.1, dec], [ra, dec + 0.1]])
    assert (margins(Outline(corners), cell) == -np.inf).all()


def test_a_patch_takes_the_tile_that_it_lies_deepest_in(cell):
    one, other, small = (
        square(cell, -100, 0, 400),
        square(cell, 400, 0, 400),
        square(cell, -100, 0, 60),
    )
    margin = np.stack([margins(tile, cell) for tile in (one, other, small)])
    assert needed(margin, SIDE).tolist() == [True, True, False]
    # Alone it would have done.
    assert needed(margin[2:], SIDE).tolist() == [True]


def test_tiles_that_part_a_patch_are_all_needed(cell):
    # The middle patch lies across the edge of both.
    margin = np.stack([margins(square(cell, x, 0, 200), cell) for x in (-200, 200)])
    assert needed(margin, SIDE).all()
    far = margins(square(cell, 5000, 0, 200), cell)
    assert needed(np.stack([*margin, far]), SIDE).tolist() == [True, True, False]


@given(st.lists(st.lists(st.floats(-500, 500), min_size=6, max_size=6), max_size=5))
def test_what_is_needed_covers_all_that_can_be(rows):
    margin = np.array(rows, float).reshape(len(rows), 6)
    chosen = needed(margin, SIDE)
    assert chosen.shape == (len(rows),)
    if len(rows):
        can_be = margin.max(axis=0) > -SIDE / np.sqrt(2)
        is_covered = np.where(chosen[:, None], margin, -np.inf).max(axis=0) > -SIDE / np.sqrt(2)
        assert (is_covered == can_be).all()


@pytest.mark.parametrize(
    "region",
    [
        "POLYGON ICRS 10.0 -1 10.5 -1 10.5 0 10 0",
        "polygon 10 -1 10.5 -1 10.5 0 10 0",
        "POLYGON FK5 10 -1, 10.5 -1, 10.5 0, 10 0",
        b"POLYGON 10 -1 10.5 -1 10.5 0 10 0",
        np.array([10, -1, 10.5, -1, 10.5, 0, 10, 0]),
    ],
)
def test_polygons_however_they_are_told(region):
    found = read_outline(region)
    assert found.corners.tolist() == [[10, -1], [10.5, -1], [10.5, 0], [10, 0]]
    assert found.radius == 0


def test_circles():
    for region in ("CIRCLE ICRS 10 -1 0.5", np.array([10, -1, 0.5])):
        found = read_outline(region)
        assert (found.corners.tolist(), found.radius) == ([[10, -1]], 0.5)


@given(st.one_of(st.text(), st.binary(), st.none(), st.lists(st.floats(), max_size=9)))
def test_anything_else_is_no_outline(region):
    found = read_outline(region)
    assert found is None or np.isfinite(found.corners).all()


@pytest.mark.parametrize(
    "region", ["", "BOX 1 2 3 4", "POLYGON 1 2 3", "POLYGON 1 2 3 4 5", "CIRCLE 1 2", "POLYGON a b"]
)
def test_what_is_not_whole_is_no_outline(region):
    assert read_outline(region) is None
