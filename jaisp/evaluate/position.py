"""How well do tokens know where a source is? Against truth, and against what the pixels allow.

Point sources were injected into tiles before they were warped (`jaisp.inject`); readouts are
fitted on those of training sky and read on those of test sky. docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.agreed import AGREEABLE, AgreedReadout
from jaisp.evaluate.bootstrap import sky_units
from jaisp.evaluate.injected import (
    REFERENCE,
    SCALES,
    TOKENS,
    Features,
    InjectedSky,
    features,
    joined,
    reference_tokens,
)
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.readout import (
    LINEAR,
    MLP,
    ONE_TOKEN,
    PEAK_DIMENSIONS,
    STACKED,
    Form,
    Readout,
)
from jaisp.evaluate.scatter import scatter
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.statistic import drawn_interval

BOTH = "both"
EACH = "each"
AGREED = "agreed"
UNDERPOWERED = 1000
CLAIM = 5.0  # a constant answer this many times as bad as the bound leaves something to be known
FEWEST = 20  # sources of a S/N to fit a readout on
MAS = 1000.0


@dataclass(frozen=True)
class Asked:
    """Sources of one sky as one survey, or all together, see them.

    offset: from the reference token's centre, in mas, in the survey's own frame. baselines: errors
    of the classical answers, mas; NaN where there is none. names: CELL/ROW/… of each source. field:
    the sky's name. interval_unit: what `unit` counts. surveys: of how many features stand side by
    side.
    """

    survey: str
    features: Features
    offset: Float[np.ndarray, "source 2"]
    snr: Float[np.ndarray, " source"]
    bound: Float[np.ndarray, " source"]
    baselines: dict[str, Float[np.ndarray, "source 2"]]
    unit: Int[np.ndarray, " source"]
    is_train: Bool[np.ndarray, " source"]
    is_test: Bool[np.ndarray, " source"]
    names: Shaped[np.ndarray, " source"]
    field: str
    interval_unit: str
    surveys: int = 1

    def part(self, chosen: Bool[np.ndarray, " source"]) -> "Asked":
        """Some of the sources."""
        return replace(
            self,
            features={
                name: {readout: values[chosen] for readout, values in own.items()}
                for name, own in self.features.items()
            },
            baselines={name: errors[chosen] for name, errors in self.baselines.items()},
            **{name: getattr(self, name)[chosen] for name in _COLUMNS},
        )


_COLUMNS = ("offset", "snr", "bound", "unit", "is_train", "is_test", "names")


@dataclass(frozen=True)
class Readouts:
    """Fitted on the training sources of one sky.

    readout: its name; `features`: which are read. probes: of the model and every control, whose
    features it reads and the readout. constant: by S/N, the best constant answer, mas.
    """

    readout: str
    features: str
    probes: dict[str, tuple[str, Readout | AgreedReadout]]
    constant: dict[float, Float[np.ndarray, " 2"]]

    def errors(self, asked: Asked) -> dict[str, Float[np.ndarray, "source 2"]]:
        """Errors of the model and every control, mas, on sources of the S/N fitted at."""
        found = {
            name: probe.predict(asked.features[encoder][self.features], asked.snr) - asked.offset
            for name, (encoder, probe) in self.probes.items()
        }
        constant = np.stack([self.constant[float(level)] for level in asked.snr])
        return found | {"constant": constant - asked.offset}


Fitted = dict[tuple[str, str], Readouts]  # by survey and readout


def position(
    sky: InjectedSky,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
    outcomes: Outcomes | None = None,
) -> list[dict[str, Any]]:
    """Rows of the group `position` on one injected sky; `field` is the sky's name.

    encoders: `model` and the controls `random` and `blank`. outcomes: where every source's error
    is kept.
    """
    asked = asked_of(sky, seen_of(sky, encoders, settings), settings)
    return position_rows(asked, fit_readouts(asked, settings), settings, outcomes)


def seen_of(
    sky: InjectedSky, encoders: Mapping[str, Encoder], settings: EvaluateConfig
) -> dict[str, Features]:
    """What every survey's encoders say around each source of a sky."""
    tokens, _ = reference_tokens(sky, settings.seed)
    edge = settings.edge
    return {s: features(sky, s, encoders, tokens, edge) for s in sorted(sky.store.surveys)}


def asked_of(
    sky: InjectedSky, seen: Mapping[str, Features], settings: EvaluateConfig
) -> dict[str, Asked]:
    """The sources of a sky, by survey, and as `both` where some are for all surveys together.

    seen: from `seen_of` that sky.
    """
    _, centres = reference_tokens(sky, settings.seed)
    asked = {survey: _asked(sky, survey, EACH, own, centres) for survey, own in seen.items()}
    together = together_of(sky, seen, settings)
    return asked if together is None else asked | {BOTH: together}


def together_of(
    sky: InjectedSky, seen: Mapping[str, Features], settings: EvaluateConfig
) -> Asked | None:
    """The sources that are for all surveys together, as the surveys of `seen` see them; None where
    the sky has none."""
    if len(sky.store.surveys) < 2 or BOTH not in np.asarray(sky.sources["kind"]):
        return None
    _, centres = reference_tokens(sky, settings.seed)
    own = _asked(sky, BOTH, BOTH, joined(list(seen.values())), centres)
    return replace(own, surveys=len(seen))


def fit_readouts(
    asked: Mapping[str, Asked],
    settings: EvaluateConfig,
    kinds: Sequence[str] = (TOKENS, SCALES),
) -> Fitted:
    """Fit readouts of every survey's tokens, and scales, on the training sources of a sky.

    They can be read on any other sky, too. What has too few training sources at every S/N to fit a
    readout on is left out.
    """
    fitted = {}
    for survey, own in asked.items():
        train = _enough(own.part(own.is_train))
        for readout in kinds:
            if len(train.snr) and readout in own.features["model"]:
                fitted[survey, readout] = _fit(train, readout, settings)
    return fitted


def position_rows(
    asked: Mapping[str, Asked],
    fitted: Fitted,
    settings: EvaluateConfig,
    outcomes: Outcomes | None = None,
) -> list[dict[str, Any]]:
    """A row a survey, readout and S/N, on the test sources of a sky; then one survey's readouts
    read on another's tokens, and those that the other's tokens were made to agree with."""
    test = {survey: own.part(own.is_test) for survey, own in asked.items()}
    rows: list[dict[str, Any]] = []
    for (survey, _), readouts in fitted.items():
        rows += _rows(survey, readouts, test[survey], settings, outcomes)
    for first, second in permutations([survey for survey in asked if survey != BOTH], 2):
        if (first, TOKENS) in fitted and _same_space(asked[first], asked[second]):
            across = f"{first}>{second}"
            rows += _rows(across, fitted[first, TOKENS], test[second], settings, outcomes)
            agreed = _fit_agreed(asked[first], asked[second], settings)
            if agreed is not None:
                rows += _rows(across, agreed, test[second], settings, outcomes)
    return rows


def _asked(
    sky: InjectedSky, survey: str, kind: str, seen: Features, centres: Float[np.ndarray, "source 2"]
) -> Asked:
    """The sources of a kind that have a token and a bound."""
    place = np.stack([sky.column(f"{axis}_{survey}") for axis in "xy"], axis=1)
    whole = Asked(
        survey=survey,
        features=seen,
        offset=(place - centres) * MAS,
        snr=sky.column("snr"),
        bound=sky.column(f"bound_mas_{survey}"),
        baselines={
            name: np.stack([sky.column(f"{name}_d{axis}_mas_{survey}") for axis in "xy"], axis=1)
            for name in ("centroid", "psf_fit")
        },
        unit=units_of(sky)[0],
        is_train=np.asarray(sky.sources["split"]) == "train",
        is_test=np.asarray(sky.sources["split"]) == "test",
        names=names_of(sky),
        field=sky.name,
        interval_unit=units_of(sky)[1],
    )
    known = np.isfinite(whole.bound) & np.isfinite(place).all(axis=1)
    for readouts in seen.values():
        for values in readouts.values():
            known &= np.isfinite(values).all(axis=1)
    return whole.part(known & (np.asarray(sky.sources["kind"]) == kind))


def _same_space(first: Asked, second: Asked) -> bool:
    widths = {own.features["model"][TOKENS].shape[1] for own in (first, second)}
    return len(widths) == 1


def _rows(
    name: str,
    fitted: Readouts,
    test: Asked,
    settings: EvaluateConfig,
    outcomes: Outcomes | None,
) -> Iterator[dict[str, Any]]:
    """A row a S/N that the readouts were fitted at."""
    test = test.part(np.isin(test.snr, list(fitted.constant)))
    if not len(test.snr):
        return
    errors = fitted.errors(test)
    for snr in np.unique(test.snr):
        own = test.snr == snr
        n = int(own.sum())
        row = {"survey": name, "snr": float(snr), "readout": fitted.readout}
        if outcomes is not None:
            identity = {**row, "sky": test.field, "figure": "median_mas"}
            outcomes.add("position", identity, test.names[own], errors["model"][own], "scatter")
        yield {
            **row,
            "n": n,
            **figures(test.part(own), {k: values[own] for k, values in errors.items()}, settings),
            "probe": fitted.probes["model"][1].chosen[float(snr)],
            "underpowered": n < UNDERPOWERED,
            "field": test.field,
            "interval_unit": test.interval_unit,
        }


def _enough(train: Asked) -> Asked:
    """Those of the S/N at which there are enough to fit on."""
    levels = [s for s in np.unique(train.snr) if np.count_nonzero(train.snr == s) >= FEWEST]
    return train.part(np.isin(train.snr, levels))


def _fit(train: Asked, readout: str, settings: EvaluateConfig) -> Readouts:
    order = _shuffled(train, settings)
    every: tuple[Form, ...] = (LINEAR, MLP)
    if readout == TOKENS:
        every = (*every, ONE_TOKEN, PEAK_DIMENSIONS, STACKED)

    def fit(encoder: str, offset: np.ndarray, kinds: tuple[Form, ...]) -> tuple[str, Readout]:
        own, asked = train.features[encoder][readout], (train.snr, train.unit, settings.seed)
        return encoder, Readout(own, offset, *asked, kinds, REFERENCE, train.surveys)

    probes = {"model": fit("model", train.offset, every)}
    for control in ("random", "blank"):
        if control in train.features and readout in train.features[control]:
            kinds = every if control == "random" else (LINEAR,)
            probes[control] = fit(control, train.offset, kinds)
    probes["shuffled"] = fit("model", train.offset[order], (LINEAR,))
    return Readouts(readout, readout, {**probes}, _constant(train))


def _fit_agreed(first: Asked, second: Asked, settings: EvaluateConfig) -> Readouts | None:
    """A readout of the first survey's positions that the second's tokens agree with; None where
    too little training sky is seen by both."""
    named = np.intersect1d(first.names[first.is_train], second.names[second.is_train])
    # Both list the sources of a sky in the same order.
    train, other = (_enough(each.part(np.isin(each.names, named))) for each in (first, second))
    if not len(train.snr):
        return None

    def fit(encoder: str, offset: np.ndarray, kinds: tuple[Form, ...]) -> tuple[str, AgreedReadout]:
        here, there = train.features[encoder][TOKENS], other.features[encoder][TOKENS]
        own = train.snr, train.unit, settings.seed, kinds, REFERENCE
        return encoder, AgreedReadout(here, there, offset, *own)

    probes = {"model": fit("model", train.offset, AGREEABLE)}
    for control in ("random", "blank"):
        if control in train.features:
            kinds: tuple[Form, ...] = AGREEABLE if control == "random" else (LINEAR,)
            probes[control] = fit(control, train.offset, kinds)
    probes["shuffled"] = fit("model", train.offset[_shuffled(train, settings)], (LINEAR,))
    return Readouts(AGREED, TOKENS, {**probes}, _constant(train))


def _shuffled(train: Asked, settings: EvaluateConfig) -> Int[np.ndarray, " source"]:
    """Other sources of the same S/N."""
    rng = np.random.default_rng(settings.seed)
    order = np.arange(len(train.snr))
    for level in np.unique(train.snr):
        own = np.flatnonzero(train.snr == level)
        order[own] = rng.permutation(own)
    return order


def _constant(train: Asked) -> dict[float, Float[np.ndarray, " 2"]]:
    return {
        float(level): np.median(train.offset[train.snr == level], axis=0)
        for level in np.unique(train.snr)
    }


def figures(
    test: Asked, errors: Mapping[str, Float[np.ndarray, "source 2"]], settings: EvaluateConfig
) -> dict[str, Any]:
    """Errors of everyone, each median |Δ| over both axes / 0.6745.

    errors: of the model and every control, mas.
    """
    model = errors["model"]
    unit = np.unique(test.unit, return_inverse=True)[1]
    low, high = drawn_interval("scatter", model, unit, settings.resamples, settings.seed)
    bound = float(np.median(test.bound))
    median, constant = scatter(model.ravel()), scatter(errors["constant"].ravel())
    figures: dict[str, Any] = {
        "median_mas": median,
        "median_mas_low": low,
        "median_mas_high": high,
        "bound_mas": bound,
        "over_bound": median / bound,
        "bias_x_mas": float(np.median(model[:, 0])),
        "bias_y_mas": float(np.median(model[:, 1])),
    }
    for name, values in test.baselines.items():
        known = np.isfinite(values).all(axis=1)
        figures[f"{name}_mas"] = scatter(values[known].ravel()) if known.any() else None
        figures[f"{name}_n"] = int(known.sum())
    for control in ("random", "blank", "shuffled", "constant"):
        figures[f"{control}_mas"] = scatter(errors[control].ravel()) if control in errors else None
    return figures | {"claim": constant >= CLAIM * bound}


def names_of(sky: InjectedSky) -> Shaped[np.ndarray, " source"]:
    """CELL/ROW/NUMBER of each source, its patch first, the same for every model."""
    cells, rows = np.asarray(sky.sources["cell"]).astype(str), np.asarray(sky.sources["row"], int)
    return np.array([f"{c}/{r}/{k}" for k, (c, r) in enumerate(zip(cells, rows, strict=True))])


def units_of(sky: InjectedSky) -> tuple[Int[np.ndarray, " source"], str]:
    """The piece of sky that each source is drawn with, and what the pieces are."""
    cell, row = np.asarray(sky.sources["cell"]).astype(str), np.asarray(sky.sources["row"], int)
    patches, patch = np.unique(np.stack([cell, row.astype(str)]), axis=1, return_inverse=True)
    return sky_units(patch.ravel(), patches[0].tolist())
