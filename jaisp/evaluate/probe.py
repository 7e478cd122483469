"""Probes: small regressions from frozen tokens to what is known of a source, and their figures.

A probe is fitted on sources of training sky and read on sources of test sky. The strength of its
regularisation is chosen on training sky alone, by cross-validation over whole units of sky, so
that a source is never predicted from its neighbours on the same patch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float, Int, Shaped
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from jaisp.evaluate.bootstrap import PERCENTILES

# Ridge strengths in units of the number of sources, for features of unit variance.
STRENGTHS = 10.0 ** np.arange(-6.0, 4.01, 0.75)
COARSE = 4  # every fourth strength is tried first
FOLDS = 3
# A prior's strength doesn't depend on how many sources there are: as many as this choose it.
CHOOSING = 1500
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_BENT = 128  # principal components that perceptrons are shown

MEMBERS = 4  # perceptrons, trained side by side from different weights; their mean is the answer
HIDDEN = 128
HELD_OUT = 0.15  # of the sources, to stop the training of the perceptrons
SMALLEST_BATCH, LARGEST_BATCH = 32, 256
STEPS, EPOCHS = 400, 20  # at least so many steps, and so many times over the sources
CHECKS, PATIENCE = 20, 7  # of the sources left out, and how many without a better answer
LEARNING_RATE, WEIGHT_DECAY = 8e-3, 1e-2


@dataclass(frozen=True)
class Probe:
    """A fitted regression. `apply` maps standardised features to standardised targets.

    strengths: of a ridge regression, as indices of STRENGTHS.
    """

    feature_mean: Float[np.ndarray, " feature"]
    feature_scale: Float[np.ndarray, " feature"]
    target_mean: Float[np.ndarray, " target"]
    target_scale: Float[np.ndarray, " target"]
    apply: Callable[[np.ndarray], np.ndarray]
    strengths: Int[np.ndarray, " target"] | None = None

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
    together: bool = False,
    strengths: Int[np.ndarray, " target"] | None = None,
) -> Probe:
    """Fit targets to features: by ridge regression, or by a perceptron with one hidden layer.

    groups: the unit of sky of each source, e.g. its patch; sources of one unit are never on both
    sides of a cross-validation. A feature or target that is constant counts as zero. Perceptrons
    leave out targets that are NaN. together: features are divided by one number, not each by its
    own deviation, so that of principal components the leading ones are trusted most. strengths:
    of an earlier ridge regression's, instead of choosing them. Raises ValueError when there are
    fewer than two sources.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} sources are too few to fit a probe")
    feature_mean, feature_scale = _standard(np.asarray(features, np.float64))
    if together:
        feature_scale = _common(feature_scale)
    target_mean, target_scale = _standard(np.asarray(targets, np.float64))
    x = (np.asarray(features, np.float64) - feature_mean) * feature_scale
    y = (np.asarray(targets, np.float64) - target_mean) * target_scale
    with one_thread():
        if kind == "mlp":
            apply = _fit_perceptron(x, y, seed, groups)
        else:
            strengths = _chosen(x, y, seed, groups) if strengths is None else strengths
            apply = _fit_linear(x, y, strengths)
    back = np.where(target_scale > 0, 1 / np.where(target_scale > 0, target_scale, 1), 0)
    return Probe(feature_mean, feature_scale, target_mean, back, apply, strengths)


@dataclass(frozen=True)
class BestProbe:
    """Of each target a mean of what a linear map and a perceptron answer.

    linear: maps, and the targets that each answers for. perceptron: and how many features it is
    shown. share: the perceptron's weight in the mean.
    """

    linear: list[tuple[Bool[np.ndarray, " target"], Probe]]
    perceptron: tuple[Probe, int] | None
    share: Float[np.ndarray, " target"]

    def predict(
        self, features: Float[np.ndarray, "source feature"]
    ) -> Float[np.ndarray, "source target"]:
        """Targets, in the unit that they were fitted in; NaN for those of no source."""
        straight = np.full((len(features), len(self.share)), np.nan)
        for own, probe in self.linear:
            straight[:, own] = probe.predict(features)
        if self.perceptron is None:
            return straight
        probe, shown = self.perceptron
        return straight + self.share * (probe.predict(features[:, :shown]) - straight)


def fit_best(
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"],
    kinds: tuple[str, ...] = ("linear", "mlp"),
    components: bool = False,
) -> BestProbe:
    """Fit many targets at once, each on the sources that have it: NaN where there is none.

    components: the features are principal components, of which the perceptron is shown the
    leading MOST_BENT. A perceptron answers for all targets together. Which SHARES it has in the
    answer to each is decided by the sources that stopped its training, against a ridge regression
    on the others: on training sky alone.
    """
    no_share = np.zeros(targets.shape[1])
    if "mlp" not in kinds:
        return BestProbe(_fit_by_mask(features, targets, seed, groups, components), None, no_share)
    shown = min(MOST_BENT, features.shape[1]) if components else features.shape[1]
    bent = fit_probe("mlp", features[:, :shown], targets, seed, groups, components)
    out = _left_out(len(features), seed, groups)
    part = features[~out], targets[~out], seed, groups[~out], components
    rival = BestProbe(_fit_by_mask(*part), None, no_share)
    share = _shares(rival, bent.predict(features[out, :shown]), features[out], targets[out])
    # What suits most of the sources suits all of them.
    strengths = np.full(targets.shape[1], len(STRENGTHS) - 1)
    for own, probe in rival.linear:
        strengths[own] = probe.strengths
    linear = _fit_by_mask(features, targets, seed, groups, components, strengths)
    return BestProbe(linear, (bent, shown), share)


def _shares(
    straight: BestProbe,
    bent: Float[np.ndarray, "source target"],
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
) -> Float[np.ndarray, " target"]:
    """Of each target, the one of SHARES with the least error; 0 where no source tells."""
    linear = straight.predict(features)
    known = np.isfinite(linear) & np.isfinite(targets)
    errors = [
        np.where(known, (linear + share * (bent - linear) - targets) ** 2, 0).sum(axis=0)
        for share in SHARES
    ]
    return np.array(SHARES)[np.argmin(errors, axis=0)]


def _fit_by_mask(
    features: np.ndarray,
    targets: np.ndarray,
    seed: int,
    groups: np.ndarray,
    together: bool,
    strengths: np.ndarray | None = None,
) -> list[tuple[Bool[np.ndarray, " target"], Probe]]:
    """A ridge regression for the targets that the same sources have; none for those of no source.

    The targets that it answers for come as a mask.
    """
    known = np.isfinite(targets)
    masks, which = np.unique(known, axis=1, return_inverse=True)
    fitted = []
    for number, mask in enumerate(masks.T):
        own = which.ravel() == number
        if mask.sum() >= 2:
            part = features[mask], targets[np.ix_(mask, own)], seed, groups[mask]
            known_strengths = None if strengths is None else strengths[own]
            fitted.append((own, fit_probe("linear", *part, together, known_strengths)))
    return fitted


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


def _standard(
    values: Float[np.ndarray, "source column"],
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Mean of each column, and one over its standard deviation: 0 where it is only rounding."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    std = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(axis=0) / count)
    varies = std > 1e-6 * np.abs(np.where(known, values, 0)).max(axis=0, initial=0.0)
    return mean, np.where(varies, 1 / np.where(varies, std, 1), 0)


def _common(scale: Float[np.ndarray, " column"]) -> Float[np.ndarray, " column"]:
    """One scale for all columns that vary: that of their mean variance."""
    varies = scale > 0
    variance = np.mean(1 / scale[varies] ** 2) if varies.any() else 1.0
    return np.where(varies, variance**-0.5, 0)


class _Ridge:
    """Ridge regression with an intercept, for as many strengths as are asked for, of all sources
    or of some.

    In the space of features or of sources, whichever is smaller; either way the products of
    features are taken once.
    """

    def __init__(
        self, x: Float[np.ndarray, "source feature"], y: Float[np.ndarray, "source target"]
    ) -> None:
        self._x, self._y = x, y
        self._dual = x.shape[1] > len(x)
        self._products = x @ x.T if self._dual else x.T @ x

    def fit(self, kept: Bool[np.ndarray, " source"] | None = None) -> "_Solver":
        """The regression on the sources that are kept, the fewer part of which is left out."""
        x, y, products = self._x, self._y, self._products
        if kept is not None and self._dual:
            products = products[np.ix_(kept, kept)]
        elif kept is not None:
            products = products - x[~kept].T @ x[~kept]
        if kept is not None:
            x, y = x[kept], y[kept]
        return _Solver(x, y, products, self._dual)


class _Solver:
    """Ridge regression on some sources, given the products of their features, uncentred."""

    def __init__(
        self,
        x: Float[np.ndarray, "source feature"],
        y: Float[np.ndarray, "source target"],
        products: Float[np.ndarray, "side side"],
        dual: bool,
    ) -> None:
        self._x, self._x_mean, self._y_mean = x, x.mean(axis=0), y.mean(axis=0)
        self._dual, centred = dual, y - self._y_mean
        if dual:
            row = products.mean(axis=0)
            self._gram = products - row - row[:, None] + row.mean()
            self._right = centred
        else:
            self._gram = products - len(x) * np.outer(self._x_mean, self._x_mean)
            self._right = x.T @ centred

    def weights(self, penalty: float) -> Float[np.ndarray, "feature target"]:
        """Weights of the features at one penalty on their squared sum."""
        gram = self._gram.copy(order="F")  # as LAPACK overwrites it
        gram[np.diag_indices_from(gram)] += penalty
        factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        solved = scipy.linalg.cho_solve(factor, self._right, check_finite=False)
        if not self._dual:
            return solved
        return self._x.T @ solved  # uncentred: what is solved for sums to zero

    def intercept(
        self, weights: Float[np.ndarray, "feature target"]
    ) -> Float[np.ndarray, " target"]:
        """What is added to features times weights."""
        return self._y_mean - self._x_mean @ weights


def _chosen(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None,
) -> Int[np.ndarray, " target"]:
    """Of each target, which of STRENGTHS predicts it best where it isn't fitted."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(x))[:CHOOSING])
    fold = folds(len(drawn), FOLDS, seed, None if groups is None else groups[drawn])
    return _best(x[drawn], y[drawn], fold, STRENGTHS * len(x))


def _fit_linear(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    strengths: Int[np.ndarray, " target"],
) -> Callable[[np.ndarray], np.ndarray]:
    ridge = _Ridge(x, y).fit()
    weights = np.zeros((x.shape[1], y.shape[1]))
    for number in np.unique(strengths):
        own = strengths == number
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
    whole = _Ridge(x, y)
    fitted = {part: whole.fit(fold != part) for part in parts}
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
    """One hidden layer, as it was when sources left out were predicted best."""
    out = _left_out(len(x), seed, groups)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Perceptrons(x.shape[1], y.shape[1])
        _train(network, torch.from_numpy(x).float(), torch.from_numpy(y).float(), out)

    def apply(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = network(torch.from_numpy(features).float().expand(MEMBERS, -1, -1))
            return found.mean(dim=0).numpy().astype(np.float64)

    return apply


def _left_out(
    count: int, seed: int, groups: Shaped[np.ndarray, " source"] | None
) -> Bool[np.ndarray, " source"]:
    """The sources that stop the training of perceptrons."""
    return folds(count, round(1 / HELD_OUT), seed, groups) == 0


class _Perceptrons(nn.Module):
    """[member, source, feature] to [member, source, target]: each member its own weights."""

    def __init__(self, features: int, targets: int) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.empty(MEMBERS, features, HIDDEN))
        self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, HIDDEN))
        self.out = nn.Parameter(torch.empty(MEMBERS, HIDDEN, targets))
        self.shift = nn.Parameter(torch.zeros(MEMBERS, 1, targets))
        nn.init.uniform_(self.into, -(features**-0.5), features**-0.5)
        nn.init.uniform_(self.bias, -(features**-0.5), features**-0.5)
        nn.init.uniform_(self.out, -(HIDDEN**-0.5), HIDDEN**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Targets of each member's sources."""
        hidden = nn.functional.gelu(torch.baddbmm(self.bias, x, self.into))
        return torch.baddbmm(self.shift, hidden, self.out)


def _train(network: _Perceptrons, x: Tensor, y: Tensor, out: Bool[np.ndarray, " source"]) -> None:
    """Let the learning rate fall along a cosine; keep the weights that predict `out` best."""
    left_out = torch.from_numpy(np.flatnonzero(out))
    fit = torch.from_numpy(np.flatnonzero(~out))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    # Few sources are shown in small batches, so that an epoch is some tens of steps.
    batch = int(np.clip(len(fit) // 20, SMALLEST_BATCH, LARGEST_BATCH))
    steps = max(STEPS, EPOCHS * len(fit) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    seen, answers = x[left_out].expand(MEMBERS, -1, -1), y[left_out]
    best, since, kept = np.inf, 0, network.state_dict()
    for step in range(steps):
        drawn = fit[torch.randint(len(fit), (MEMBERS, batch))]
        optimiser.zero_grad(set_to_none=True)
        # The sum over members: each is trained as if it were alone.
        (MEMBERS * _loss(network(x[drawn]), y[drawn])).backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % (steps // CHECKS) == 0:
            with torch.no_grad():
                error = float(_loss(network(seen).mean(dim=0), answers))
            since += 1
            if error < best:
                best, since = error, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            if since >= PATIENCE:
                break
    network.load_state_dict(kept)


def _loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean square over the targets that are known."""
    known = torch.isfinite(truth)
    error = torch.where(known, predicted - torch.nan_to_num(truth), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Steps of small networks, and of small matrices, are shorter than the time that threads take
    to meet; on cores that others use too, many times so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _threads().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
