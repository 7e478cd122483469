"""Some of many patches: squares of neighbours, as many as asked for, over all of the sky."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaisp.sampling import in_squares

PATCH = 51.2


def grid(rows, columns):
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.column_stack([x.ravel(), y.ravel()]) * PATCH + 7.3


def neighbours(centres, chosen):
    """How many others of the chosen each has at its side."""
    away = np.abs(centres[chosen][:, None] - centres[chosen]) / PATCH
    return (np.isclose(away.sum(axis=2), 1)).sum(axis=1)


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9)), unique=True),
)
def test_as_many_as_asked_for_each_once(most, places):
    cells = np.array([cell for cell, _, _ in places], dtype=str)
    centres = np.array([(x, y) for _, x, y in places], float).reshape(-1, 2) * PATCH
    chosen = in_squares(cells, centres, PATCH, most)
    assert len(chosen) == min(most, len(places))
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(range(len(places)))


@pytest.mark.parametrize("most", [4, 8, 12, 40])
def test_each_has_two_neighbours(most):
    centres = grid(10, 10)
    chosen = in_squares(np.full(100, "field"), centres, PATCH, most)
    assert len(chosen) == most
    assert (neighbours(centres, chosen) >= 2).all()


def test_squares_lie_over_all_of_the_sky():
    centres = grid(4, 40)
    chosen = in_squares(np.full(160, "field"), centres, PATCH, 16)
    x = centres[chosen, 0] / PATCH
    assert x.min() < 4
    assert x.max() > 36
    assert np.diff(np.unique(np.round(x // 2))).max() <= 8


def test_patches_of_two_cells_make_no_square():
    centres = np.repeat(grid(1, 2), 2, axis=0)
    cells = np.array(["a", "b", "b", "a"])
    chosen = in_squares(cells, centres, PATCH, 2)
    assert len(np.unique(cells[chosen])) == 1


def test_lone_patches_come_last():
    centres = np.concatenate([grid(2, 4), [[1000.0, 1000.0]]])
    for most in (4, 8):
        assert 8 not in in_squares(np.full(9, "field"), centres, PATCH, most)
    assert 8 in in_squares(np.full(9, "field"), centres, PATCH, 9)
