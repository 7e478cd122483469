"""Probes: small regressions from frozen tokens to what is known of a source.

A probe is fitted on sources of training sky and read on sources of test sky. The strength of its
regularisation is chosen on training sky alone, by cross-validation over whole units of sky, so
that a source is never predicted from its neighbours on the same patch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from threadpoolctl import ThreadpoolController

from jaisp.evaluate.perceptrons import fit_perceptrons, left_out
from jaisp.evaluate.ridge import STRENGTHS, choose_strengths, fit_ridge

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_BENT = 128  # principal components that perceptrons are shown


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
            apply = fit_perceptrons(x, y, seed, groups)
        else:
            strengths = choose_strengths(x, y, seed, groups) if strengths is None else strengths
            apply = fit_ridge(x, y, strengths)
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
    out = left_out(len(features), seed, groups)
    part = features[~out], targets[~out], seed, groups[~out], components
    rival = BestProbe(_fit_by_mask(*part), None, no_share)
    share = _shares(rival, bent.predict(features[out, :shown]), features[out], targets[out])
    # What suits most of the sources suits all of them.
    strengths = np.full(targets.shape[1], len(STRENGTHS) - 1)
    for own, probe in rival.linear:
        strengths[own] = probe.strengths
    linear = _fit_by_mask(features, targets, seed, groups, components, strengths)
    return BestProbe(linear, (bent, shown), share)


def fit_once(
    fitted: dict[str, BestProbe],
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"],
    kinds: tuple[str, ...] = ("linear", "mlp"),
    components: bool = False,
) -> BestProbe:
    """`fit_best`, or what it gave before for the very same: training sky stays what it is, whatever
    sky is read. fitted: by checksum, what is known and what becomes known."""
    groups = np.unique(groups, return_inverse=True)[1]
    checksum = sha256(repr((features.shape, targets.shape, seed, kinds, components)).encode())
    for array in (features, targets, groups):
        checksum.update(array.tobytes())
    key = checksum.hexdigest()
    if key not in fitted:
        fitted[key] = fit_best(features, targets, seed, groups, kinds, components)
    return fitted[key]


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
