"""The same regressions from tokens, from controls and from classical measurements.

Everyone is asked about the same sources, is fitted on those of training sky, and is read on those
of test sky. No answer goes beyond what training sky showed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.known import KnownSky
from jaisp.evaluate.probe import WHOLE, BestProbe, fit_once
from jaisp.evaluate.scatter import r2, r2_interval, scatter, scatter_interval
from jaisp.evaluate.seen import Seen

UNDERPOWERED = 1000
FEWEST_TRAIN, FEWEST_TEST = 50, 20
CLASSICAL, SHUFFLED = "classical", "shuffled"
BENDING = ("model", "random", CLASSICAL)  # whose probes may be perceptrons

Answers = dict[str, Float[np.ndarray, "source target"]]


@dataclass(frozen=True)
class Regression:
    """The regressions from one view of the tokens.

    answers: by name, for every source. probes: by name, as fitted on training sky. low, high: of
    each target on training sky, beyond which no answer goes; NaN where it has too few sources.
    """

    answers: Answers
    probes: dict[str, BestProbe]
    low: Float[np.ndarray, " target"]
    high: Float[np.ndarray, " target"]

    def read(
        self, name: str, features: Float[np.ndarray, "source feature"]
    ) -> Float[np.ndarray, "source target"]:
        """What is answered from any features, by probes as they are; NaN where there are none."""
        found = np.full((len(features), len(self.low)), np.nan)
        met = np.isfinite(features).all(axis=1)
        if name in self.probes and met.any():
            found[met] = np.clip(self.probes[name].predict(features[met]), self.low, self.high)
        return found


def regress(
    known: KnownSky,
    seen: Seen,
    view: str,
    targets: Float[np.ndarray, "source target"],
    classical: Float[np.ndarray, "source feature"] | None,
    settings: EvaluateConfig,
) -> Regression:
    """What each encoder, `shuffled` and `classical` answer for every source.

    targets: NaN where a source has none, or isn't asked about. classical: the baseline's
    measurements; NaN where there are none. NaN is answered where the view doesn't see the source,
    and for targets of fewer than FEWEST_TRAIN training sources. `shuffled` is fitted on the
    model's features paired with the wrong sources.
    """
    encoders = list(seen.components[seen.views[view][0]])
    features = {name: seen.of(view, name) for name in encoders}
    met = np.all([np.isfinite(values).all(axis=1) for values in features.values()], axis=0)
    train = met & ~known.is_test
    asked = np.isfinite(targets[train]).sum(axis=0) >= FEWEST_TRAIN
    truth = np.where(asked, targets, np.nan)
    features[SHUFFLED] = _paired_wrongly(features["model"], met, known.is_test, settings.seed)
    if classical is not None:
        features[CLASSICAL] = _filled(classical, train)
    low = np.where(asked, np.fmin.reduce(truth[train], axis=0, initial=np.inf), np.nan)
    high = np.where(asked, np.fmax.reduce(truth[train], axis=0, initial=-np.inf), np.nan)
    probes = {}
    for name, values in features.items() if asked.any() else ():
        kinds = ("linear", "mlp") if name in BENDING else ("linear",)
        blocks = (
            WHOLE if name == CLASSICAL else seen.blocks(view, "model" if name == SHUFFLED else name)
        )
        part = values[train], truth[train], settings.seed, known.units[0][train]
        probes[name] = fit_once(seen.probes, *part, kinds, blocks)
    fitted = Regression({}, probes, low, high)
    answers = {
        name: fitted.read(name, np.where(met[:, None], values, np.nan))
        for name, values in features.items()
    }
    return replace(fitted, answers=answers)


def figures(
    truth: Float[np.ndarray, " source"],
    answers: Mapping[str, Float[np.ndarray, " source"]],
    known: KnownSky,
    tested: Bool[np.ndarray, " source"],
    settings: EvaluateConfig,
    classical: str,
) -> dict[str, Any]:
    """R² and scatter of one target on the tested sources, beside everyone else's.

    classical: the name that the baseline goes by.
    """
    units, unit = known.units
    drawn = np.unique(units[tested], return_inverse=True)[1]
    model, own = answers["model"][tested], truth[tested]
    limits = settings.resamples, settings.seed
    row: dict[str, Any] = {"n": int(tested.sum()), "r2": r2(own, model)}
    row["r2_low"], row["r2_high"] = r2_interval(own, model, drawn, *limits)
    row["scatter"] = scatter(model - own)
    row["scatter_low"], row["scatter_high"] = scatter_interval(model - own, drawn, *limits)
    for name in ("random", "blank", SHUFFLED):
        row[f"{name}_r2"] = r2(own, answers[name][tested]) if name in answers else None
    baseline = answers.get(CLASSICAL)
    row[f"{classical}_r2"] = None if baseline is None else r2(own, baseline[tested])
    row[f"{classical}_scatter"] = None if baseline is None else scatter(baseline[tested] - own)
    isolated = tested & np.asarray(known.sky.sources["isolated"], bool)
    alone = truth[isolated]
    row |= {
        "isolated_n": int(isolated.sum()),
        "isolated_r2": r2(alone, answers["model"][isolated]),
        f"isolated_{classical}_r2": None if baseline is None else r2(alone, baseline[isolated]),
    }
    return row | {
        "truth": known.truth,
        "interval_unit": unit,
        "underpowered": int(tested.sum()) < UNDERPOWERED,
    }


def tested_sources(
    known: KnownSky, truth: Float[np.ndarray, " source"], answer: Float[np.ndarray, " source"]
) -> Bool[np.ndarray, " source"]:
    """Sources of test sky with a truth and an answer; none if they are fewer than FEWEST_TEST."""
    tested = known.is_test & np.isfinite(truth) & np.isfinite(answer)
    return tested & (np.count_nonzero(tested) >= FEWEST_TEST)


def _paired_wrongly(
    values: Float[np.ndarray, "source feature"],
    met: Bool[np.ndarray, " source"],
    is_test: Bool[np.ndarray, " source"],
    seed: int,
) -> Float[np.ndarray, "source feature"]:
    """Every source with the features of another one of its split."""
    rng, found = np.random.default_rng(seed), values.copy()
    # Training sky first: its pairs are the same, whatever sky is read.
    for part in (met & ~is_test, met & is_test):
        own = np.flatnonzero(part)
        # A cyclic shift along a random order leaves no source in place.
        order = rng.permutation(own)
        found[order] = values[np.roll(order, 1)]
    return found


def _filled(
    values: Float[np.ndarray, "source feature"], train: Bool[np.ndarray, " source"]
) -> Float[np.ndarray, "source feature"]:
    """What is missing takes the median of training sky."""
    known = np.isfinite(values)
    medians = [
        np.median(column[mask]) if mask.any() else 0.0
        for column, mask in zip(values[train].T, known[train].T, strict=True)
    ]
    return np.where(known, values, medians)
