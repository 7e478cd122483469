"""How well do tokens know where a source is? Against truth, and against what the pixels allow.

Point sources were injected into tiles before they were warped (`jaisp.inject`); readouts are
fitted on those of training sky and read on those of test sky. docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import interval, sky_units
from jaisp.evaluate.injected import (
    SCALES,
    TOKENS,
    Features,
    InjectedSky,
    features,
    joined,
    reference_tokens,
)
from jaisp.evaluate.probe import scatter
from jaisp.evaluate.readout import LINEAR, MLP, Form, Readout
from jaisp.evaluate.views import Encoder

BOTH = "both"
EACH = "each"
UNDERPOWERED = 1000
CLAIM = 5.0  # a constant answer this many times as bad as the bound leaves something to be known
FEWEST = 20  # sources of a S/N to fit a readout on
MAS = 1000.0


@dataclass(frozen=True)
class Asked:
    """Sources of one sky as one survey, or all together, see them.

    offset: from the reference token's centre, in mas, in the survey's own frame. baselines: errors
    of the classical answers, mas; NaN where there is none.
    """

    survey: str
    features: Features
    offset: Float[np.ndarray, "source 2"]
    snr: Float[np.ndarray, " source"]
    bound: Float[np.ndarray, " source"]
    baselines: dict[str, Float[np.ndarray, "source 2"]]
    unit: Int[np.ndarray, " source"]
    is_test: Bool[np.ndarray, " source"]

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


_COLUMNS = ("offset", "snr", "bound", "unit", "is_test")


def position(
    sky: InjectedSky, encoders: Mapping[str, Encoder], settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """Rows of the group `position` on one injected sky.

    encoders: `model` and the controls `random` and `blank`.
    """
    tokens, centres = reference_tokens(sky, settings.seed)
    surveys = sorted(sky.store.surveys)
    seen = {
        survey: features(sky, survey, encoders, tokens, settings.edge_tokens) for survey in surveys
    }
    asked = {survey: _asked(sky, survey, EACH, seen[survey], centres) for survey in surveys}
    rows: list[dict[str, Any]] = []
    fitted = {survey: _Fitted(own, settings) for survey, own in asked.items()}
    for survey, own in asked.items():
        rows += _rows(fitted[survey], own, settings)
    if len(surveys) > 1 and BOTH in np.asarray(sky.sources["kind"]):
        together = _asked(sky, BOTH, BOTH, joined([seen[s] for s in surveys]), centres)
        rows += _rows(_Fitted(together, settings), together, settings)
    for first, second in permutations(surveys, 2):
        if _same_space(asked[first], asked[second]):
            rows += _rows(fitted[first], asked[second], settings)
    return [{**row, "field": sky.name, "interval_unit": _units(sky)[1]} for row in rows]


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
        unit=_units(sky)[0],
        is_test=np.asarray(sky.sources["split"]) == "test",
    )
    known = np.isfinite(whole.bound) & np.isfinite(place).all(axis=1)
    for readouts in seen.values():
        for values in readouts.values():
            known &= np.isfinite(values).all(axis=1)
    return whole.part(known & (np.asarray(sky.sources["kind"]) == kind))


def _same_space(first: Asked, second: Asked) -> bool:
    widths = {own.features["model"][TOKENS].shape[1] for own in (first, second)}
    return len(widths) == 1


class _Fitted:
    """Readouts of the model and of every control, fitted on the training sources of a survey.

    by_readout: `tokens`, and `scales` where the model has them; by name, whose features are read
    and how.
    """

    def __init__(self, asked: Asked, settings: EvaluateConfig) -> None:
        train = asked.part(~asked.is_test)
        levels, counts = np.unique(train.snr, return_counts=True)
        self.survey = asked.survey
        self.train = train.part(np.isin(train.snr, levels[counts >= FEWEST]))
        self.by_readout: dict[str, dict[str, tuple[str, Readout]]] = {}
        if len(self.train.snr):
            for readout in asked.features["model"]:
                self.by_readout[readout] = self._fit(readout, settings)

    def _fit(self, readout: str, settings: EvaluateConfig) -> dict[str, tuple[str, Readout]]:
        train, rng = self.train, np.random.default_rng(settings.seed)
        order = np.arange(len(train.snr))
        for level in np.unique(train.snr):
            own = np.flatnonzero(train.snr == level)
            order[own] = rng.permutation(own)

        def fit(encoder: str, offset: np.ndarray, kinds: tuple[Form, ...]) -> Readout:
            own = train.features[encoder][readout]
            return Readout(own, offset, train.snr, train.unit, settings.seed, kinds)

        fitted = {"model": ("model", fit("model", train.offset, (LINEAR, MLP)))}
        for control in ("random", "blank"):
            if control in train.features and readout in train.features[control]:
                kinds = (LINEAR, MLP) if control == "random" else (LINEAR,)
                fitted[control] = (control, fit(control, train.offset, kinds))
        fitted["shuffled"] = ("model", fit("model", train.offset[order], (LINEAR,)))
        return fitted

    def errors(self, test: Asked, readout: str) -> dict[str, Float[np.ndarray, "source 2"]]:
        """Answer minus truth, mas, of the model, of every control, and of the best constant."""
        errors = {
            name: probe.predict(test.features[encoder][readout], test.snr) - test.offset
            for name, (encoder, probe) in self.by_readout[readout].items()
        }
        return errors | {"constant": _best_constant(self.train, test) - test.offset}


def _rows(fitted: _Fitted, read: Asked, settings: EvaluateConfig) -> Iterator[dict[str, Any]]:
    """A row a readout and S/N: fitted on one survey's training sources, read on another's test."""
    across = fitted.survey != read.survey
    name = f"{fitted.survey}>{read.survey}" if across else read.survey
    test = read.part(read.is_test & np.isin(read.snr, fitted.train.snr))
    for readout in (TOKENS,) if across else (TOKENS, SCALES):
        if readout not in fitted.by_readout or not len(test.snr):
            continue
        errors = fitted.errors(test, readout)
        for snr in np.unique(test.snr):
            own = test.snr == snr
            n = int(own.sum())
            yield {
                "survey": name,
                "snr": float(snr),
                "readout": readout,
                "n": n,
                **_figures(test.part(own), {k: v[own] for k, v in errors.items()}, settings),
                "probe": fitted.by_readout[readout]["model"][1].chosen[float(snr)],
                "underpowered": n < UNDERPOWERED,
            }


def _best_constant(train: Asked, test: Asked) -> Float32[np.ndarray, "source 2"]:
    """The median of the training offsets at the same S/N."""
    answer = np.zeros((len(test.snr), 2), np.float32)
    for level in np.unique(test.snr):
        answer[test.snr == level] = np.median(train.offset[train.snr == level], axis=0)
    return answer


def _figures(
    test: Asked, errors: Mapping[str, Float[np.ndarray, "source 2"]], settings: EvaluateConfig
) -> dict[str, Any]:
    """Errors of everyone, each median |Δ| over both axes / 0.6745."""
    model = errors["model"]
    unit = np.unique(test.unit, return_inverse=True)[1]
    low, high = interval(
        lambda drawn: scatter(model[drawn].ravel()), unit, settings.resamples, settings.seed
    )
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


def _units(sky: InjectedSky) -> tuple[Int[np.ndarray, " source"], str]:
    """The piece of sky that each source is drawn with, and what the pieces are."""
    cell, row = np.asarray(sky.sources["cell"]).astype(str), np.asarray(sky.sources["row"], int)
    patches, patch = np.unique(np.stack([cell, row.astype(str)]), axis=1, return_inverse=True)
    return sky_units(patch.ravel(), patches[0].tolist())
