"""What a figure is of its sources' values: all of them, or resamples of their sky.

A resample counts each unit of sky so many times; every statistic here is a ratio of sums over
units, or a median, so that all resamples are worked out at once.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from jaisp.evaluate.bootstrap import limits
from jaisp.evaluate.scatter import drawn_r2, drawn_scatter, r2, scatter

# Values of a source: any, whose mean it is; errors; truth and answer; what `pearson_sums` gives;
# a score, and 1 where it should be high.
Statistic = Literal["mean", "scatter", "r2", "pearson", "auc"]
COLUMNS = {"r2": 2, "pearson": 5, "auc": 2}


def figure_of(statistic: Statistic, values: Float[np.ndarray, "source column"]) -> float:
    """The figure that some sources give; NaN of none."""
    if not len(values):
        return float("nan")
    if statistic == "mean":
        return float(values.mean())
    if statistic == "scatter":
        return scatter(values.ravel())
    if statistic == "r2":
        return r2(values[:, 0], values[:, 1])
    if statistic == "auc":
        return auc(values[:, 0], values[:, 1] > 0)
    return float(_pearson(values.mean(axis=0, dtype=float)[None])[0])


def drawn_figures(
    statistic: Statistic,
    values: Float[np.ndarray, "source column"],
    units: Int[np.ndarray, " source"],
    drawn: Int[np.ndarray, "resample unit"],
) -> Float[np.ndarray, " resample"]:
    """The figure of each resample; NaN where it has none. drawn: how often each unit counts."""
    if statistic == "scatter":
        return drawn_scatter(values.ravel(), np.repeat(units, values.shape[1]), drawn)
    if statistic == "r2":
        return drawn_r2(values[:, 0], values[:, 1], units, drawn)
    if statistic == "auc":
        return drawn_auc(values[:, 0], values[:, 1] > 0, units, drawn)
    n = drawn.shape[1]
    count = np.maximum(drawn @ np.bincount(units, minlength=n), 1)[:, None]
    sums = drawn @ np.stack([np.bincount(units, column, n) for column in values.T], axis=1)
    return (sums / count).mean(axis=1) if statistic == "mean" else _pearson(sums / count)


def drawn_interval(
    statistic: Statistic,
    values: Float[np.ndarray, "source column"],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of a figure, units of sky drawn with replacement; NaN of a single source."""
    if len(units) < 2:
        return np.nan, np.nan
    return limits(drawn_figures(statistic, values, units, draws(units, resamples, seed)))


def draws(
    units: Int[np.ndarray, " source"], resamples: int, seed: int
) -> Int[np.ndarray, "resample unit"]:
    """How often each unit of sky counts in each resample."""
    n = int(units.max()) + 1
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)


def pearson_sums(
    truth: Float[np.ndarray, "source y x"], answer: Float[np.ndarray, "source y x"]
) -> Float[np.ndarray, "source 5"]:
    """Means over each source's pixels of x, y, x², y² and xy: all that the correlation coefficient
    over the pixels of any sources needs."""
    x, y = (np.asarray(values, float) for values in (truth, answer))
    return np.stack([own.mean(axis=(1, 2)) for own in (x, y, x**2, y**2, x * y)], axis=1)


def _pearson(means: Float[np.ndarray, "resample 5"]) -> Float[np.ndarray, " resample"]:
    """From means of `pearson_sums`; 0 for what is constant, up to rounding."""
    x, y, xx, yy, xy = means.T
    spread = (xx - x**2) * (yy - y**2)
    known = (xx - x**2 > 1e-12 * xx) & (yy - y**2 > 1e-12 * yy)
    return np.where(known, (xy - x * y) / np.sqrt(np.where(known, spread, 1)), 0.0)


def auc(score: Float[np.ndarray, " source"], high: Bool[np.ndarray, " source"]) -> float:
    """Chance that one that should be high scores above one that shouldn't (Mann & Whitney 1947);
    ties count half. NaN where either is missing."""
    return float(_above(score, high).mean()) if high.any() and not high.all() else float("nan")


def drawn_auc(
    score: Float[np.ndarray, " source"],
    high: Bool[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    drawn: Int[np.ndarray, "resample unit"],
) -> Float[np.ndarray, " resample"]:
    """`auc` of each resample: a ratio of sums over pairs of units."""
    n = drawn.shape[1]
    of_unit = np.eye(n)
    above = of_unit[:, units[high]] @ _above(score, high) @ of_unit[units[~high]]
    pairs = np.outer(*(np.bincount(units[kind], minlength=n) for kind in (high, ~high)))
    won, played = (((drawn @ own) * drawn).sum(axis=1) for own in (above, pairs))
    return np.where(played > 0, won / np.maximum(played, 1), np.nan)


def _above(
    score: Float[np.ndarray, " source"], high: Bool[np.ndarray, " source"]
) -> Float[np.ndarray, "high low"]:
    up, down = score[high][:, None], score[~high]
    return (up > down) + 0.5 * (up == down)
