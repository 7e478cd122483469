"""How well answers fit the truth: R² and robust scatter, with intervals from resampled sky."""

import numpy as np
from jaxtyping import Float, Int

from jaisp.evaluate.bootstrap import limits

A_BLOCK = 2**20  # counts of sources in resamples, that are held at a time


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
    return limits(drawn_r2(truth, predicted, units, drawn))


def drawn_r2(
    truth: Float[np.ndarray, " source"],
    predicted: Float[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    drawn: Int[np.ndarray, "resample unit"],
) -> Float[np.ndarray, " resample"]:
    """R² of each resample, NaN where it has none. drawn: how often each unit counts."""
    n = drawn.shape[1]
    centred = truth - truth.mean()
    count, first, second, error = (
        drawn @ np.bincount(units, values, n)
        for values in (np.ones(len(truth)), centred, centred**2, (truth - predicted) ** 2)
    )
    total = second - first**2 / np.maximum(count, 1)
    return np.where(total > 0, 1 - error / np.where(total > 0, total, 1), np.nan)


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
    return limits(drawn_scatter(residual, units, drawn))


def drawn_scatter(
    residual: Float[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    drawn: Int[np.ndarray, "resample unit"],
) -> Float[np.ndarray, " resample"]:
    """`scatter` of each resample, NaN where it has no source. drawn: how often each unit counts."""
    return drawn_median(np.abs(residual), units, drawn) / 0.6745


def drawn_median(
    values: Float[np.ndarray, " source"],
    units: Int[np.ndarray, " source"],
    drawn: Int[np.ndarray, "resample unit"],
) -> Float[np.ndarray, " resample"]:
    """Median of each resample, NaN where it has no source."""
    order = np.argsort(values)
    ranked, own = np.append(values[order], np.nan), units[order]
    blocks = np.array_split(drawn, 1 + len(drawn) * len(own) // A_BLOCK)
    middle = [
        # The source at which half of the resample's are counted, and the one after that half.
        (ranked[(c < np.maximum((c[:, -1:] + 1) // 2, 1)).sum(axis=1)]
         + ranked[(c < c[:, -1:] // 2 + 1).sum(axis=1)]) / 2
        for c in (np.cumsum(block[:, own], axis=1, dtype=np.int32) for block in blocks)
    ]  # fmt: skip
    return np.concatenate(middle)
