"""How well answers fit the truth: R² and robust scatter, with intervals from resampled sky."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from jaisp.evaluate.bootstrap import PERCENTILES


def r2(truth: Float[np.ndarray, " source"], predicted: Float[np.ndarray, " source"]) -> float:
    """1 − Σ(truth − predicted)² / Σ(truth − mean truth)²: below 0, worse than one constant."""
    total = float(((truth - truth.mean()) ** 2).sum()) if len(truth) else 0.0
    return 1 - float(((truth - predicted) ** 2).sum()) / total if total > 0 else np.nan


def r2_interval(
    truth: Float[np.ndarray, " source"],
    predicted: Float[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of R², units of sky drawn with replacement."""
    if len(truth) < 2:
        return np.nan, np.nan
    n = int(units.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    centred = truth - truth.mean()
    count, first, second, error = (
        drawn @ np.bincount(units, values, n)
        for values in (np.ones(len(truth)), centred, centred**2, (truth - predicted) ** 2)
    )
    total = second - first**2 / np.maximum(count, 1)
    kept = total > 0
    if not kept.any():
        return np.nan, np.nan
    low, high = np.percentile(1 - error[kept] / total[kept], PERCENTILES)
    return float(low), float(high)


def scatter(residual: Float[np.ndarray, " source"]) -> float:
    """Median |residual| / 0.6745: σ of Gaussian residuals, whatever their tails."""
    return float(np.median(np.abs(residual)) / 0.6745) if len(residual) else np.nan


def scatter_interval(
    residual: Float[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of `scatter`, units of sky drawn with replacement."""
    if len(residual) < 2:
        return np.nan, np.nan
    n = int(units.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    order = np.argsort(np.abs(residual))
    ranked = np.abs(residual)[order]
    medians = [
        ranked[np.searchsorted(c, (c[-1] + 1) // 2)] for c in _cumulated(drawn, units[order])
    ]
    low, high = np.percentile(np.array(medians) / 0.6745, PERCENTILES)
    return float(low), float(high)


def _cumulated(
    drawn: Int[np.ndarray, "resample unit"], units: Int[np.ndarray, " source"]
) -> Iterator[Int[np.ndarray, " source"]]:
    """Of each resample, how many sources there are up to each; resamples of none are left out."""
    for counts in drawn:
        cumulated = np.cumsum(counts[units])
        if cumulated[-1]:
            yield cumulated
