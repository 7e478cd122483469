"""Which patches are looked at where not all are: squares of neighbours, evenly over the sky.

Encoders see some arcseconds beyond a patch, and most of a lone patch's window is that margin;
neighbours share theirs.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

SIDE = 2  # patches


def evenly(count: int, most: int) -> Int[np.ndarray, " drawn"]:
    """At most `most` of `count` places, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def in_squares(
    cells: Shaped[np.ndarray, " patch"],
    centres: Float[np.ndarray, "patch 2"],
    patch_arcsec: float,
    most: int,
) -> Int[np.ndarray, " chosen"]:
    """At most so many of some patches, in squares of two by two, spread evenly.

    cells: of each patch, by name. centres: x, y on the cell's plane, arcsec. Fuller squares come
    before others. Returns their places among those given, ascending.
    """
    if len(cells) <= most:
        return np.arange(len(cells))
    cell = np.unique(cells, return_inverse=True)[1].ravel()
    step = np.rint((centres - centres.min(axis=0)) / patch_arcsec).astype(int) // SIDE
    _, square, count = np.unique(
        np.column_stack([cell, step]), axis=0, return_inverse=True, return_counts=True
    )
    square = square.ravel()
    fullest = next(n for n in range(SIDE**2, 0, -1) if count[count >= n].sum() >= most)
    eligible = np.flatnonzero(count >= fullest)
    # As few squares as hold enough, drawn evenly; of the last, some patches may be left over.
    draws = (eligible[evenly(len(eligible), n)] for n in range(1, len(eligible) + 1))
    chosen = next(squares for squares in draws if count[squares].sum() >= most)
    members = [np.flatnonzero(square == number) for number in chosen]
    return np.sort(np.concatenate(members)[:most])
