"""Intervals from resampled sky (Efron & Tibshirani 1993, section 8).

Sources of one patch share its noise, its seeing and its astrometry, so that patches are drawn,
not sources; from 20 cells on, cells.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaisp.sky import MANY_CELLS

FEW_PATCHES = 5
PERCENTILES = (2.5, 97.5)


def sky_units(
    patches: Int[np.ndarray, " source"], cells: Sequence[str]
) -> tuple[Int[np.ndarray, " source"], str]:
    """The unit of sky that each source is drawn with, and what the units are.

    patches: each source's patch, an index into `cells`, the name of each patch's cell.
    Below 5 patches there is nothing to draw from but the sources themselves.
    """
    names = np.asarray(cells)[patches] if len(patches) else np.zeros(0, str)
    if len(np.unique(names)) >= MANY_CELLS:
        return np.unique(names, return_inverse=True)[1], "cell"
    if len(np.unique(patches)) >= FEW_PATCHES:
        return np.unique(patches, return_inverse=True)[1], "patch"
    return np.arange(len(patches)), "source"


def mean_interval(
    values: Float[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of a mean over sources, units of sky drawn with replacement."""
    low, high = mean_intervals(values[None], units, resamples, seed)[0]
    return float(low), float(high)


def mean_intervals(
    values: Float[np.ndarray, "figure source"],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "figure 2"]:
    """95 % intervals of several means over the same sources, of the same draws."""
    if values.shape[1] < 2:
        return np.full((len(values), 2), np.nan)
    n = int(units.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    sums = np.stack([np.bincount(units, own, n) for own in values], axis=1)
    means = (drawn @ sums) / (drawn @ np.bincount(units, minlength=n))[:, None]
    return np.percentile(means, PERCENTILES, axis=0).T


def interval(
    statistic: Callable[[Int[np.ndarray, " drawn"]], float],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of any statistic of the drawn sources' indices."""
    return limits(resampled(statistic, units, resamples, seed))


def limits(values: Float[np.ndarray, " resample"]) -> tuple[float, float]:
    """95 % interval of a figure from its resamples, those left out that have none; NaN of none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, PERCENTILES)
    return float(low), float(high)


def resampled(
    statistic: Callable[[Int[np.ndarray, " drawn"]], float],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> Float[np.ndarray, " resample"]:
    """The statistic of each resample; none where there are fewer than two sources."""
    if len(units) < 2:
        return np.zeros(0)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(units == unit) for unit in range(int(units.max()) + 1)]
    draws = rng.integers(len(members), size=(resamples, len(members)))
    return np.array([statistic(np.concatenate([members[i] for i in drawn])) for drawn in draws])
