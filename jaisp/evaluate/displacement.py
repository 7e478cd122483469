"""How far a source lies in one survey from where it lies in another, off the tokens of both.

Four forms of readout: linear in the tokens' strongest directions; linear in the one token of each
in the middle, or in the dimensions of it that hold peaks; or linear in the products of what tokens
differ by with what they have in common, both over the tokens' length. By how much tokens differ for
a small displacement depends on what they show, which a linear readout can't take into account.

Where tokens of all surveys share a space, a survey's own pairs, displaced and at home, can be
learnt from as well: products from both, which doubles what there is; and peaks from these alone,
which have the same noise on both sides, so that nothing is shrunk by what faint ones don't tell.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float32, Int

from jaisp.evaluate.injected import REFERENCE, kept
from jaisp.evaluate.probe import fit_probe
from jaisp.evaluate.readout import LINEAR, ONE_TOKEN, PEAK_DIMENSIONS

Kind = Literal[
    "linear", "one token", "peaks", "peaks of one survey", "products", "products of both"
]
OWN_PEAKS: Kind = "peaks of one survey"  # fitted on the reference survey's own pairs alone
PRODUCTS: Kind = "products"
BOTH_PRODUCTS: Kind = "products of both"  # fitted on the reference survey's own pairs as well
DIFFERENCES, COMMON = 32, 24  # directions of each that are multiplied
STRONGEST = 128  # directions of each survey that a linear readout is given
SHORTEST = 0.01  # of the median length: below, tokens say nothing

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


def kinds_of(
    away: Float32[np.ndarray, "source _"], here: Float32[np.ndarray, "source _"]
) -> tuple[Kind, ...]:
    """The forms that can be fitted: only tokens of one length can be subtracted."""
    linear: tuple[Kind, ...] = LINEAR, ONE_TOKEN, PEAK_DIMENSIONS
    shared = OWN_PEAKS, PRODUCTS, BOTH_PRODUCTS
    return (*linear, *shared) if away.shape[1] == here.shape[1] else linear


def fit_displacement(
    kind: Kind,
    away: Float32[np.ndarray, "source _"],
    here: Float32[np.ndarray, "source _"],
    moved: Float[np.ndarray, "source 2"],
    unit: Int[np.ndarray, " source"],
    seed: int,
    constant: bool = True,
    strengths: Int[np.ndarray, " 2"] | None = None,
) -> tuple[Predict, Int[np.ndarray, " 2"]]:
    """Fit displacements to tokens of the displaced survey and of the other, means subtracted.

    unit: the piece of sky of each source. constant: whether equal tokens may mean a displacement;
    without, the linear forms only know what tokens differ by. strengths: of an earlier fit's ridge
    regression, instead of choosing them; returned with what predicts.
    """
    constant = constant and kind != OWN_PEAKS
    if kind in (ONE_TOKEN, PEAK_DIMENSIONS, OWN_PEAKS):
        describe = _middle(kind, constant)
    else:
        describe = _linear(away, here, constant) if kind == LINEAR else _products(away, here)
    x, y = describe(away, here), moved
    if not constant:
        x, y, unit = np.concatenate([x, -x]), np.concatenate([y, -y]), np.tile(unit, 2)
    probe = fit_probe("linear", x, y, seed, unit, strengths=strengths)
    assert probe.strengths is not None
    return lambda away, here: probe.predict(describe(away, here)), probe.strengths


def _linear(away: np.ndarray, here: np.ndarray, constant: bool) -> Predict:
    """The strongest directions of both, or only of what they differ by."""
    if not constant:
        differ = _directions(away - here, STRONGEST)
        return lambda away, here: (away - here) @ differ
    from_away, from_here = _directions(away, STRONGEST), _directions(here, STRONGEST)
    return lambda away, here: np.concatenate([away @ from_away, here @ from_here], axis=1)


def _middle(kind: Kind, constant: bool) -> Predict:
    """The middle one of each side's 3 × 3 tokens, all of it or where peaks are, or only what both
    differ by."""

    def describe(away: np.ndarray, here: np.ndarray) -> np.ndarray:
        shown = [side[:, REFERENCE] for side in (away, here)]
        away, here = shown if kind == ONE_TOKEN else map(kept, shown)
        return np.concatenate([away, here], axis=1) if constant else away - here

    return describe


def _products(away: np.ndarray, here: np.ndarray) -> Predict:
    length = float(np.median(_length(away, here)))
    differ, common = _split(away, here, length)
    from_differ, from_common = _directions(differ, DIFFERENCES), _directions(common, COMMON)

    def describe(away: np.ndarray, here: np.ndarray) -> np.ndarray:
        differ, common = _split(away, here, length)
        pairs = np.einsum("sd,sc->sdc", differ @ from_differ, common @ from_common)
        return pairs.reshape(len(pairs), -1)

    return describe


def _length(away: np.ndarray, here: np.ndarray) -> Float[np.ndarray, " source"]:
    return np.sqrt((((away + here) / 2) ** 2).mean(axis=1, dtype=np.float64))


def _split(
    away: np.ndarray, here: np.ndarray, length: float
) -> Sequence[Float[np.ndarray, "source feature"]]:
    """What tokens differ by and what they have in common, over their length."""
    over = 1 / np.maximum(_length(away, here), max(SHORTEST * length, 1e-12))[:, None]
    return (away - here) * over, (away + here) / 2 * over


def _directions(
    values: Float[np.ndarray, "source feature"], count: int
) -> Float[np.ndarray, "feature kept"]:
    """Those in which values are longest, about zero."""
    values = values.astype(np.float32, copy=False)
    width = values.shape[1]
    last = max(0, width - count), width - 1
    _, vectors = scipy.linalg.eigh(values.T @ values, subset_by_index=last, check_finite=False)
    return vectors[:, ::-1]
