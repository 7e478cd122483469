"""One source or two? From tokens alone, beside counting the peaks in the image.

Single point sources and close pairs of them were injected into tiles of empty sky
(`jaisp.inject`), both with the same range of S/N. Probes are fitted on those of training sky and
read on those of test sky. docs/ruler.md defines every figure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import limits
from jaisp.evaluate.folds import folds
from jaisp.evaluate.injected import (
    TOKENS,
    Features,
    InjectedSky,
    features,
    joined,
    nearest_tokens,
)
from jaisp.evaluate.position import BOTH, UNDERPOWERED, names_of, units_of
from jaisp.evaluate.probe import fit_probe
from jaisp.evaluate.readout import LINEAR, MLP, PARTS, Form, components
from jaisp.evaluate.scatter import scatter, scatter_interval
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.statistic import auc, drawn_auc, draws

SEPARATIONS_ARCSEC = (0.3, 0.6, 0.9, 1.2, 1.5)
FEWEST = 40  # single sources, and pairs, of training sky


@dataclass(frozen=True)
class Blends:
    """Single and double sources as one survey, or all together, see them.

    tokens: by encoder, the 3 × 3 tokens around the token that holds the centre of light. names:
    CELL/ROW/… of each source. separation: arcsec, 0 for one source. share: of the fainter one.
    peaks: found in the image.
    """

    survey: str
    tokens: dict[str, Float32[np.ndarray, "source feature"]]
    names: Shaped[np.ndarray, " source"]
    snr: Float[np.ndarray, " source"]
    is_pair: Bool[np.ndarray, " source"]
    separation: Float[np.ndarray, " source"]
    share: Float[np.ndarray, " source"]
    peaks: Int[np.ndarray, " source"]
    unit: Int[np.ndarray, " source"]
    is_train: Bool[np.ndarray, " source"]
    is_test: Bool[np.ndarray, " source"]

    def part(self, chosen: Bool[np.ndarray, " source"]) -> "Blends":
        """Some of the sources."""
        return replace(
            self,
            tokens={name: values[chosen] for name, values in self.tokens.items()},
            **{name: getattr(self, name)[chosen] for name in _COLUMNS},
        )


_COLUMNS = (
    "names", "snr", "is_pair", "separation", "share", "peaks", "unit", "is_train", "is_test"
)  # fmt: skip
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scorers:
    """Probes of one view's tokens, by encoder, fitted on training sky.

    score: whether there are two, above `zero` if so. share: of the fainter one, as if there were
    two; constant_share: the best constant. chosen: form of the model's probe.
    """

    score: dict[str, Predict]
    zero: dict[str, float]
    share: dict[str, Predict]
    constant_share: float
    chosen: Form

    def scores(self, blends: Blends, seed: int) -> dict[str, Float[np.ndarray, " source"]]:
        """Above 0 for two; `shuffled` has the model's scores of other sources."""
        found = {
            name: self.score[name](own) - self.zero[name]
            for name, own in blends.tokens.items()
            if name in self.score
        }
        # A probe of shuffled labels would not do: who ranks by any direction ranks well or badly.
        order = np.random.default_rng(seed).permutation(len(blends.snr))
        return found | {"shuffled": found["model"][order]}


def deblending(
    pairs: InjectedSky, encoders: Mapping[str, Encoder], settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """Rows of the group `deblending`: of each survey, and of all together, by separation.

    encoders: `model` and the controls `random` and `blank`. What has too few sources of either
    kind on training sky has no row.
    """
    blends = blends_of(pairs, pairs_seen(pairs, encoders, settings))
    return deblending_rows(pairs, blends, fit_scorers(blends, settings), settings)


def pairs_seen(
    pairs: InjectedSky, encoders: Mapping[str, Encoder], settings: EvaluateConfig
) -> dict[str, Features]:
    """What every survey's encoders say around each source."""
    tokens, edge = nearest_tokens(pairs), settings.edge
    surveys = sorted(pairs.store.surveys)
    return {s: features(pairs, s, encoders, tokens, edge, readouts=(TOKENS,)) for s in surveys}


def blends_of(
    pairs: InjectedSky,
    seen: Mapping[str, Features],
    names: Shaped[np.ndarray, " source"] | None = None,
) -> dict[str, Blends]:
    """The sources as each survey sees them and, of several, all together.

    seen: as `pairs_seen` gives it. names: of sources that are a part of another sky's.
    """
    names = names_of(pairs) if names is None else names
    blends = {survey: _blends(pairs, names, [survey], own) for survey, own in seen.items()}
    if len(seen) > 1:
        blends[BOTH] = _blends(pairs, names, list(seen), joined(list(seen.values())))
    return blends


def _blends(
    sky: InjectedSky, names: Shaped[np.ndarray, " source"], surveys: list[str], seen: Features
) -> Blends:
    """The sources that have all their tokens. Of several surveys, the most peaks count."""
    split = np.asarray(sky.sources["split"]).astype(str)
    whole = Blends(
        survey=surveys[0] if len(surveys) == 1 else BOTH,
        tokens={name: own[TOKENS] for name, own in seen.items() if TOKENS in own},
        names=names,
        snr=sky.column("snr"),
        is_pair=np.asarray(sky.sources["components"]) == 2,
        separation=sky.column("separation_arcsec"),
        share=sky.column("flux_share"),
        peaks=np.max([np.asarray(sky.sources[f"peaks_{s}"], int) for s in surveys], axis=0),
        unit=units_of(sky)[0],
        is_train=split == "train",
        is_test=split == "test",
    )
    known = np.logical_and.reduce([np.isfinite(own).all(axis=1) for own in whole.tokens.values()])
    return whole.part(known)


def deblending_rows(
    pairs: InjectedSky,
    every: Mapping[str, Blends],
    fitted: Mapping[str, Scorers],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """A row a survey and range of separations, for all S/N together (`snr` is None) and for each
    S/N."""
    rows: list[dict[str, Any]] = []
    for survey, scorers in fitted.items():
        test = every[survey].part(every[survey].is_test)
        answers = _answers(test, scorers, settings)
        levels = np.unique(test.snr)
        for snr in (None, *(levels.tolist() if len(levels) > 1 else [])):
            at_level = np.ones(len(test.snr), bool) if snr is None else test.snr == snr
            rows += _rows(test, answers, at_level, snr, settings)
    known = {"field": pairs.name, "interval_unit": units_of(pairs)[1]}
    return [{**row, **known} for row in rows]


def fit_scorers(blends: Mapping[str, Blends], settings: EvaluateConfig) -> dict[str, Scorers]:
    """Probes of each view's tokens, fitted on training sky; none where it has too few sources of
    either kind."""
    fitted = {}
    for survey, own in blends.items():
        train = own.part(own.is_train)
        if min(np.count_nonzero(train.is_pair), np.count_nonzero(~train.is_pair)) >= FEWEST:
            fitted[survey] = _fit(train, settings)
    return fitted


def _fit(train: Blends, settings: EvaluateConfig) -> Scorers:
    two = np.where(train.is_pair, 1.0, -1.0)
    pairs = train.part(train.is_pair)
    score: dict[str, Predict] = {}
    share: dict[str, Predict] = {}
    zero: dict[str, float] = {}
    chosen: dict[str, Form] = {}
    for name in ("model", "random", "blank"):
        if name not in train.tokens:
            continue
        own, of_pairs = train.tokens[name], pairs.tokens[name]
        kinds: tuple[Form, ...] = (LINEAR,) if name == "blank" else (LINEAR, MLP)
        chosen[name] = form = _better(own, two, train.unit, kinds, settings.seed)
        score[name] = _fitted(form, own, two, train.unit, settings.seed)
        found = score[name](own)
        # Zero lies midway between the two kinds, however many there are of each.
        zero[name] = float(found[two > 0].mean() + found[two < 0].mean()) / 2
        share[name] = _fitted(form, of_pairs, pairs.share, pairs.unit, settings.seed)
    return Scorers(score, zero, share, float(np.median(pairs.share)), chosen["model"])


@dataclass(frozen=True)
class _Answers:
    """Of test sources. score: by encoder, above 0 for two; `shuffled` has the model's scores of
    other sources. share: of the fainter, as if there were two; constant_share: the best constant.
    chosen: form of the model's probe."""

    score: dict[str, Float[np.ndarray, " source"]]
    share: dict[str, Float[np.ndarray, " source"]]
    constant_share: float
    chosen: Form


def _answers(test: Blends, scorers: Scorers, settings: EvaluateConfig) -> _Answers:
    share = {name: predict(test.tokens[name]) for name, predict in scorers.share.items()}
    score = scorers.scores(test, settings.seed)
    return _Answers(score, share, scorers.constant_share, scorers.chosen)


def _better(
    x: Float32[np.ndarray, "source feature"],
    y: Float[np.ndarray, " source"],
    unit: Int[np.ndarray, " source"],
    kinds: tuple[Form, ...],
    seed: int,
) -> Form:
    """The better form of probe, chosen on a part of training sky that it has not seen."""
    if len(kinds) == 1:
        return kinds[0]
    out = folds(len(x), PARTS, seed, unit) == 0
    part = x[~out], y[~out], unit[~out], seed
    tried = {kind: _fitted(kind, *part)(x[out]) for kind in kinds}
    return min(kinds, key=lambda kind: float(np.mean((tried[kind] - y[out]) ** 2)))


def _fitted(kind: Form, x: np.ndarray, y: np.ndarray, unit: np.ndarray, seed: int) -> Predict:
    if kind == LINEAR:
        probe = fit_probe(LINEAR, x, y[:, None], seed, unit)
        return lambda asked: probe.predict(asked)[:, 0]
    reduce = components(x, seed)
    bent = fit_probe(MLP, reduce.transform(x), y[:, None], seed, unit)
    return lambda asked: bent.predict(reduce.transform(asked))[:, 0]


def _rows(
    test: Blends,
    answers: _Answers,
    at_level: Bool[np.ndarray, " source"],
    snr: float | None,
    settings: EvaluateConfig,
) -> Iterator[dict[str, Any]]:
    for low, high in pairwise(SEPARATIONS_ARCSEC):
        close = test.is_pair & (test.separation >= low) & (test.separation < high)
        own = np.flatnonzero(at_level & (close | ~test.is_pair))
        two = test.is_pair[own]
        if not two.any() or two.all():
            continue
        n = len(own)
        unit = np.unique(test.unit[own], return_inverse=True)[1]
        score = {name: values[own] for name, values in answers.score.items()}
        row: dict[str, Any] = {
            "survey": test.survey,
            "snr": snr,
            "separation_low_arcsec": low,
            "separation_high_arcsec": high,
            "separation_arcsec": float(np.median(test.separation[own][two])),
            "n": n,
            "pairs": int(two.sum()),
        }
        edges = _intervals(score["model"], two, unit, settings)
        for name, figure in (("accuracy", _accuracy), ("auc", auc)):
            row[name] = figure(score["model"], two)
            row[f"{name}_low"], row[f"{name}_high"] = edges[name]
            for control in score.keys() - {"model"}:
                row[f"{control}_{name}"] = figure(score[control], two)
        peaks = np.where(test.peaks[own] >= 2, 1.0, -1.0)
        row["peaks_accuracy"] = _accuracy(peaks, two)
        row |= _share_figures(test, answers, own[two], settings)
        yield row | {"probe": answers.chosen, "underpowered": n < UNDERPOWERED}


def _share_figures(
    test: Blends, answers: _Answers, pairs: Int[np.ndarray, " pair"], settings: EvaluateConfig
) -> dict[str, Any]:
    """Scatter of the fainter one's share, over true pairs."""
    truth = test.share[pairs]
    errors = {name: values[pairs] - truth for name, values in answers.share.items()}
    unit = np.unique(test.unit[pairs], return_inverse=True)[1]
    low, high = scatter_interval(errors["model"], unit, settings.resamples, settings.seed)
    figures = {"share_scatter": scatter(errors["model"])}
    figures |= {"share_scatter_low": low, "share_scatter_high": high}
    figures |= {f"{k}_share_scatter": scatter(e) for k, e in errors.items() if k != "model"}
    return figures | {"constant_share_scatter": scatter(answers.constant_share - truth)}


def _accuracy(score: Float[np.ndarray, " source"], two: Bool[np.ndarray, " source"]) -> float:
    """Mean of the shares of pairs and of single sources that are told right: .5 is chance."""
    right = (score > 0) == two
    return float((right[two].mean() + right[~two].mean()) / 2)


def _intervals(
    score: Float[np.ndarray, " source"],
    two: Bool[np.ndarray, " source"],
    unit: Int[np.ndarray, " source"],
    settings: EvaluateConfig,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of accuracy and AUC, units of sky drawn with replacement."""
    drawn = draws(unit, settings.resamples, settings.seed)
    right, n = (score > 0) == two, drawn.shape[1]
    told = [
        (drawn @ np.bincount(unit[kind], right[kind], n), drawn @ np.bincount(unit[kind], None, n))
        for kind in (two, ~two)
    ]
    shares = [np.where(count > 0, part / np.maximum(count, 1), np.nan) for part, count in told]
    return {
        "accuracy": limits(np.mean(shares, axis=0)),
        "auc": limits(drawn_auc(score, two, unit, drawn)),
    }
