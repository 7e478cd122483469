"""Ridge regression of positions that sources which can't be told don't lead astray.

Where a brighter neighbour lies on a source, its tokens tell the neighbour's place: an error of half
a token, with no end of weight in a sum of squares. Whoever is told wrong by more than CLIP by fits
that never saw it is left out, until nobody else is. Answers of another sort, as that two surveys
differ by nothing, have errors of their own size, and are judged among themselves.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaisp.evaluate.folds import folds
from jaisp.evaluate.probe import Probe, best_strengths, checksum, fit_probe

PARTS = 3  # of training sky: each is predicted from the others
CLIP = 3.4  # times the median distance: 4 σ of a round Gaussian
ROUNDS = 6
FEWEST = 0.5  # of the sources that are kept, at least

Positions = Float[np.ndarray, "source 2"]


def fit_clipped(
    features: Float[np.ndarray, "source feature"],
    offsets: Positions,
    seed: int,
    units: Shaped[np.ndarray, " source"],
    sorts: Int[np.ndarray, " source"] | None = None,
) -> tuple[Probe, Positions]:
    """A linear map, of the sources that are kept; and what is told of each source by a map that was
    fitted on kept ones of other sky.

    units: the piece of sky of each source. sorts: of answers, from 0 on; one, if not given.
    """
    sorts = np.zeros(len(features), int) if sorts is None else sorts
    part = folds(len(features), PARTS, seed, units)
    near, told = np.ones(len(features), bool), np.zeros(offsets.shape)
    for _ in range(ROUNDS):
        kept = near
        strengths = best_strengths(features[kept], offsets[kept], seed, units[kept])
        for number in np.unique(part):
            out, fit = part == number, kept & (part != number)
            other = features[fit], offsets[fit], seed, units[fit]
            unseen = fit_probe("linear", *other, strengths=strengths)
            told[out] = unseen.predict(features[out])
        away = np.hypot(*(told - offsets).T)
        median = np.array([np.median(away[kept & (sorts == sort)]) for sort in np.unique(sorts)])
        near = away <= CLIP * median[sorts]
        if (near == kept).all() or near.mean() < FEWEST:
            break
    own = features[kept], offsets[kept], seed, units[kept]
    return fit_probe("linear", *own, strengths=strengths), told


def fit_clipped_once(
    fitted: dict[str, tuple[Probe, np.ndarray]],
    features: Float[np.ndarray, "source feature"],
    offsets: Positions,
    seed: int,
    units: Shaped[np.ndarray, " source"],
    sorts: Int[np.ndarray, " source"],
) -> tuple[Probe, Positions]:
    """`fit_clipped`, or what it gave before for the very same: forms have regressions in common.
    fitted: by checksum, what is known and what becomes known."""
    key = checksum(seed, features, offsets, np.unique(units, return_inverse=True)[1], sorts)
    if key not in fitted:
        fitted[key] = fit_clipped(features, offsets, seed, units, sorts)
    return fitted[key]
