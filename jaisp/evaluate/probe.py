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
import scipy.optimize
import torch
from jaxtyping import Bool, Float, Int, Shaped
from threadpoolctl import ThreadpoolController

from jaisp.evaluate.perceptrons import fit_perceptrons, left_out
from jaisp.evaluate.ridge import STRENGTHS, choose_strengths, fit_ridge

HELD, ROUNDING = 1e3, 1e-9  # the weight of a sum that is to be one; of an answer's variance
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


def best_strengths(
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"],
) -> Int[np.ndarray, " target"]:
    """The strengths that a linear `fit_probe` of the same chooses."""
    x, y = (_standardised(np.asarray(values, np.float64)) for values in (features, targets))
    with one_thread():
        return choose_strengths(x, y, seed, groups)


@dataclass(frozen=True)
class Block:
    """Columns of the features off which probes read by themselves.

    components: they are principal components: of these a linear map trusts the leading ones most,
    and a perceptron is shown the leading MOST_BENT.
    """

    columns: slice
    components: bool = False


WHOLE = (Block(slice(None)),)


@dataclass(frozen=True)
class Member:
    """What answers off some columns. probes: and the targets that each answers for."""

    columns: slice
    probes: list[tuple[Bool[np.ndarray, " target"], Probe]]

    def predict(
        self, features: Float[np.ndarray, "source feature"], targets: int
    ) -> Float[np.ndarray, "source target"]:
        """NaN for targets that nothing answers for."""
        found = np.full((len(features), targets), np.nan)
        for own, probe in self.probes:
            found[:, own] = probe.predict(features[:, self.columns])
        return found


@dataclass(frozen=True)
class BestProbe:
    """Of each target a mean of what the members answer. weights: of each member, for each."""

    members: list[Member]
    weights: Float[np.ndarray, "member target"]

    def predict(
        self, features: Float[np.ndarray, "source feature"]
    ) -> Float[np.ndarray, "source target"]:
        """Targets, in the unit that they were fitted in; NaN for those of no source."""
        told = [member.predict(features, self.weights.shape[1]) for member in self.members]
        return np.einsum("mst,mt->st", np.stack(told), self.weights)


def fit_best(
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"],
    kinds: tuple[str, ...] = ("linear", "mlp"),
    blocks: tuple[Block, ...] = WHOLE,
) -> BestProbe:
    """Fit many targets at once, each on the sources that have it: NaN where there is none.

    Off each block a linear map is fitted and a perceptron, which answers for all targets together.
    How much each of them weighs in the answer to a target is decided by the sources that stopped
    the perceptrons' training, which the maps that are weighed have not seen either: on training sky
    alone.
    """
    bent = [_bent(block, features, targets, seed, groups) for block in blocks if "mlp" in kinds]
    if len(blocks) + len(bent) == 1:
        member = _straight(blocks[0], features, targets, seed, groups)
        return BestProbe([member], np.ones((1, targets.shape[1])))
    out = left_out(len(features), seed, groups)
    part = features[~out], targets[~out], seed, groups[~out]
    rivals = [_straight(block, *part) for block in blocks]
    told = [member.predict(features[out], targets.shape[1]) for member in (*rivals, *bent)]
    weights = _weights(np.stack(told), targets[out])
    # What suits most of the sources suits all of them.
    whole = features, targets, seed, groups
    straight = [
        _straight(block, *whole, _strengths(rival, targets.shape[1]))
        for block, rival in zip(blocks, rivals, strict=True)
    ]
    return BestProbe([*straight, *bent], weights)


def fit_once(
    fitted: dict[str, BestProbe],
    features: Float[np.ndarray, "source feature"],
    targets: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"],
    kinds: tuple[str, ...] = ("linear", "mlp"),
    blocks: tuple[Block, ...] = WHOLE,
) -> BestProbe:
    """`fit_best`, or what it gave before for the very same: training sky stays what it is, whatever
    sky is read. fitted: by checksum, what is known and what becomes known."""
    groups = np.unique(groups, return_inverse=True)[1]
    key = checksum((seed, kinds, blocks), features, targets, groups)
    if key not in fitted:
        fitted[key] = fit_best(features, targets, seed, groups, kinds, blocks)
    return fitted[key]


def checksum(settings: object, *arrays: np.ndarray) -> str:
    """Of what a fit depends on."""
    found = sha256(repr((settings, [array.shape for array in arrays])).encode())
    for array in arrays:
        found.update(array.tobytes())
    return found.hexdigest()


def _straight(
    block: Block,
    features: np.ndarray,
    targets: np.ndarray,
    seed: int,
    groups: np.ndarray,
    strengths: np.ndarray | None = None,
) -> Member:
    """A ridge regression for the targets that the same sources have; none for those of none."""
    shown, known = features[:, block.columns], np.isfinite(targets)
    masks, which = np.unique(known, axis=1, return_inverse=True)
    fitted = []
    for number, mask in enumerate(masks.T):
        own = which.ravel() == number
        if mask.sum() >= 2:
            part = shown[mask], targets[np.ix_(mask, own)], seed, groups[mask], block.components
            known_strengths = None if strengths is None else strengths[own]
            fitted.append((own, fit_probe("linear", *part, known_strengths)))
    return Member(block.columns, fitted)


def _bent(
    block: Block, features: np.ndarray, targets: np.ndarray, seed: int, groups: np.ndarray
) -> Member:
    columns = block.columns
    if block.components:
        start, stop, _ = columns.indices(features.shape[1])
        columns = slice(start, min(start + MOST_BENT, stop))
    probe = fit_probe("mlp", features[:, columns], targets, seed, groups, block.components)
    return Member(columns, [(np.ones(targets.shape[1], bool), probe)])


def _strengths(member: Member, targets: int) -> Int[np.ndarray, " target"]:
    """Of each target's ridge regression; the strongest for those that have none."""
    strengths = np.full(targets, len(STRENGTHS) - 1)
    for own, probe in member.probes:
        strengths[own] = probe.strengths
    return strengths


def _weights(
    told: Float[np.ndarray, "member source target"], truth: Float[np.ndarray, "source target"]
) -> Float[np.ndarray, "member target"]:
    """Of each target, the weights of least error that are not negative and add up to one; all on
    the first member where no source tells."""
    weights = np.zeros((len(told), truth.shape[1]))
    weights[0] = 1
    for number in range(truth.shape[1]):
        known = np.isfinite(told[..., number]).all(axis=0) & np.isfinite(truth[:, number])
        if known.any():
            errors = told[:, known, number] - truth[known, number]
            weights[:, number] = _least_squares(errors)
    return weights


def _least_squares(errors: Float[np.ndarray, "member source"]) -> Float[np.ndarray, " member"]:
    """Weights that are not negative, add up to one, and make the weighed error least."""
    deviation = np.sqrt(np.mean(errors**2))
    if not deviation:
        return np.full(len(errors), 1 / len(errors))
    products = errors @ errors.T / errors.shape[1] / deviation**2
    # min wᵀ P w on the simplex is least squares of its root, with the sum held by a large weight.
    root = np.linalg.cholesky(products + ROUNDING * np.eye(len(products))).T
    held = np.vstack([root, np.full(len(products), HELD)])
    weights, _ = scipy.optimize.nnls(held, np.append(np.zeros(len(products)), HELD))
    return weights / weights.sum()


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


def _standardised(values: Float[np.ndarray, "source column"]) -> Float[np.ndarray, "source column"]:
    mean, scale = _standard(values)
    return (values - mean) * scale


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
