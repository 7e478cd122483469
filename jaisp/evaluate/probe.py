"""Probes: small regressions from frozen tokens to what is known of a source, and their figures.

A probe is fitted on sources of training sky and read on sources of test sky. The strength of its
regularisation is chosen on training sky alone, by cross-validation over whole units of sky, so
that a source is never predicted from its neighbours on the same patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from jaisp.evaluate.bootstrap import PERCENTILES, interval

# Ridge strengths in units of the number of sources, for features of unit variance.
STRENGTHS = 10.0 ** np.arange(-6.0, 4.01, 0.5)
COARSE = 4  # every fourth strength is tried first
FOLDS = 3
# A prior's strength doesn't depend on how many sources there are: as many as this choose it.
CHOOSING = 4000

HIDDEN = 128
HELD_OUT = 0.15  # of the sources, to stop the training of a multilayer perceptron
SMALLEST_BATCH, LARGEST_BATCH = 16, 256
EPOCHS, PATIENCE = 60, 8
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 1e-3, 1e-2, 0.1


@dataclass(frozen=True)
class Probe:
    """A fitted regression. `apply` maps standardised features to standardised targets."""

    feature_mean: Float[np.ndarray, " feature"]
    feature_scale: Float[np.ndarray, " feature"]
    target_mean: Float[np.ndarray, " target"]
    target_scale: Float[np.ndarray, " target"]
    apply: Callable[[np.ndarray], np.ndarray]

    def predict(
        self, features: Float[np.ndarray, "source feature"]
    ) -> Float[np.ndarray, "source target"]:
        """Targets, in the unit that they were fitted in."""
        x = (np.asarray(features, np.float64) - self.feature_mean) * self.feature_scale
        return self.apply(x) * self.target_scale + self.target_mean


def fit_probe(
    kind: Literal["linear", "mlp"],
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None = None,
) -> Probe:
    """Fit targets to features: by ridge regression, or by a perceptron with one hidden layer.

    groups: the unit of sky of each source, e.g. its patch; sources of one unit are never on both
    sides of a cross-validation. A feature or target that is constant counts as zero. Raises
    ValueError when there are fewer than two sources.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} sources are too few to fit a probe")
    feature_mean, feature_scale = _standard(np.asarray(features, np.float64))
    target_mean, target_scale = _standard(np.asarray(targets, np.float64))
    x = (np.asarray(features, np.float64) - feature_mean) * feature_scale
    y = (np.asarray(targets, np.float64) - target_mean) * target_scale
    fit = _fit_linear if kind == "linear" else _fit_perceptron
    apply = fit(x, y, seed, groups)
    back = np.where(target_scale > 0, 1 / np.where(target_scale > 0, target_scale, 1), 0)
    return Probe(feature_mean, feature_scale, target_mean, back, apply)


def folds(
    count: int, number: int, seed: int, groups: Shaped[np.ndarray, " source"] | None = None
) -> Int[np.ndarray, " source"]:
    """Which of `number` parts of about the same size each source is in; a group stays whole.

    With fewer groups than parts, sources are drawn singly.
    """
    rng = np.random.default_rng(seed)
    members = np.arange(count)
    if groups is not None:
        found = np.unique(groups, return_inverse=True)[1]
        if found.max(initial=0) + 1 >= number:
            members = found
    sizes = np.bincount(members)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part, filled = np.zeros(len(sizes), int), np.zeros(number, int)
    for group in order:
        part[group] = filled.argmin()
        filled[part[group]] += sizes[group]
    return part[members]


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
    return interval(lambda drawn: scatter(residual[drawn]), units, resamples, seed)


def _standard(
    values: Float[np.ndarray, "source column"],
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Mean of each column, and one over its standard deviation: 0 where it is only rounding."""
    mean, std = values.mean(axis=0), values.std(axis=0)
    varies = std > 1e-6 * np.abs(values).max(axis=0, initial=0.0)
    return mean, np.where(varies, 1 / np.where(varies, std, 1), 0)


class _Ridge:
    """Ridge regression with an intercept, for as many strengths as are asked for.

    In the space of features or of sources, whichever is smaller.
    """

    def __init__(
        self, x: Float[np.ndarray, "source feature"], y: Float[np.ndarray, "source target"]
    ) -> None:
        self._x_mean, self._y_mean = x.mean(axis=0), y.mean(axis=0)
        self._x, self._y = x - self._x_mean, y - self._y_mean
        self._dual = x.shape[1] > len(x)
        self._gram = self._x @ self._x.T if self._dual else self._x.T @ self._x
        self._right = self._y if self._dual else self._x.T @ self._y

    def weights(self, penalty: float) -> Float[np.ndarray, "feature target"]:
        """Weights of the features at one penalty on their squared sum."""
        gram = self._gram.copy(order="F")  # as LAPACK overwrites it
        gram[np.diag_indices_from(gram)] += penalty
        factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        solved = scipy.linalg.cho_solve(factor, self._right, check_finite=False)
        return self._x.T @ solved if self._dual else solved

    def intercept(
        self, weights: Float[np.ndarray, "feature target"]
    ) -> Float[np.ndarray, " target"]:
        """What is added to features times weights."""
        return self._y_mean - self._x_mean @ weights


def _fit_linear(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None,
) -> Callable[[np.ndarray], np.ndarray]:
    drawn = np.sort(np.random.default_rng(seed).permutation(len(x))[:CHOOSING])
    fold = folds(len(drawn), FOLDS, seed, None if groups is None else groups[drawn])
    chosen = _best(x[drawn], y[drawn], fold, STRENGTHS * len(x))
    ridge = _Ridge(x, y)
    weights = np.zeros((x.shape[1], y.shape[1]))
    for number in np.unique(chosen):
        own = chosen == number
        weights[:, own] = ridge.weights(STRENGTHS[number] * len(x))[:, own]
    intercept = ridge.intercept(weights)
    return lambda features: features @ weights + intercept


def _best(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    fold: Int[np.ndarray, " source"],
    penalties: Float[np.ndarray, " penalty"],
) -> Int[np.ndarray, " target"]:
    """Of each target, which penalty predicts it best on the parts left out: coarse, then fine."""
    parts = [part for part in np.unique(fold) if (fold != part).sum() >= 2]
    fitted = {part: _Ridge(x[fold != part], y[fold != part]) for part in parts}
    errors = np.full((len(penalties), y.shape[1]), np.inf)

    def try_all(numbers: set[int]) -> Int[np.ndarray, " target"]:
        for number in sorted(numbers):
            if np.isfinite(errors[number]).all():
                continue
            total = np.zeros(y.shape[1])
            for part, ridge in fitted.items():
                out, weights = fold == part, ridge.weights(penalties[number])
                total += ((x[out] @ weights + ridge.intercept(weights) - y[out]) ** 2).sum(axis=0)
            errors[number] = total
        return errors.argmin(axis=0)

    best = try_all(set(range(0, len(penalties), COARSE)))
    step = COARSE // 2
    while step:
        around = {int(b) + s for b in best for s in (-step, step)}
        best = try_all({number for number in around if 0 <= number < len(penalties)})
        step //= 2
    return best


def _fit_perceptron(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None,
) -> Callable[[np.ndarray], np.ndarray]:
    """One hidden layer, stopped when sources left out are predicted no better."""
    out = folds(len(x), round(1 / HELD_OUT), seed, groups) == 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, y.shape[1]),
        )  # fmt: skip
        _train(network, torch.from_numpy(x).float(), torch.from_numpy(y).float(), out)

    def apply(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(features).float()).numpy().astype(np.float64)

    return apply


def _train(network: nn.Module, x: Tensor, y: Tensor, out: Bool[np.ndarray, " source"]) -> None:
    left_out = torch.from_numpy(np.flatnonzero(out))
    fit = torch.from_numpy(np.flatnonzero(~out))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    # Few sources are shown in small batches, so that an epoch is some tens of steps.
    batch_size = int(np.clip(len(fit) // 40, SMALLEST_BATCH, LARGEST_BATCH))
    best, since, kept = np.inf, 0, network.state_dict()
    for _ in range(EPOCHS):
        network.train()
        for batch in fit[torch.randperm(len(fit))].split(batch_size):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(x[batch]), y[batch]).backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(network(x[left_out]), y[left_out]))
        since += 1
        if error < best:
            best, since = error, 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        if since >= PATIENCE:
            break
    network.load_state_dict(kept)
    network.eval()
