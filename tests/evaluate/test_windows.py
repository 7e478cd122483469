"""Windows of sky that are encoded as one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaisp.evaluate.windows import LARGEST, windows

SIDE, MARGIN = 32, 11


def _areas(tokens, members):
    return [int(np.prod(np.ptp(tokens[own], axis=0) + 1 + 2 * MARGIN)) for own in members]


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 8))
def test_every_source_is_in_one_window_that_is_no_larger_than_it_may_be(seed, count, side):
    tokens = np.random.default_rng(seed).integers(0, side * SIDE, size=(count, 2))
    squares = tokens // SIDE
    members = windows(tokens, squares, MARGIN)
    assert sorted(np.concatenate(members)) == list(range(count))
    assert max(_areas(tokens, members)) <= LARGEST
    alone = [np.flatnonzero((squares == own).all(axis=1)) for own in np.unique(squares, axis=0)]
    assert sum(_areas(tokens, members)) <= sum(_areas(tokens, alone))


def test_neighbours_share_a_window_and_distant_squares_do_not():
    corners = np.array([[0, 0], [31, 31], [32, 0], [63, 31], [320, 0], [351, 31]])
    members = windows(corners, corners // SIDE, MARGIN)
    assert [own.tolist() for own in members] == [[0, 1, 2, 3], [4, 5]]


def test_no_source_no_window():
    nothing = np.zeros((0, 2), int)
    assert windows(nothing, nothing, MARGIN) == []
