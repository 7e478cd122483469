"""One source or two? From tokens alone, beside counting the peaks in the image.

Single point sources and close pairs of them were injected into tiles of empty sky
(`jaisp.inject`), both with the same range of S/N. Probes are fitted on those of training sky and
read on those of test sky. docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import PERCENTILES, interval
from jaisp.evaluate.folds import folds
from jaisp.evaluate.injected import TOKENS, InjectedSky, features, joined, nearest_tokens
from jaisp.evaluate.position import BOTH, UNDERPOWERED, units_of
from jaisp.evaluate.probe import fit_probe
from jaisp.evaluate.readout import LINEAR, MLP, PARTS, Form, components
from jaisp.evaluate.scatter import scatter
from jaisp.evaluate.views import Encoder

SEPARATIONS_ARCSEC = (0.3, 0.6, 0.9, 1.2, 1.5)
FEWEST = 40  # single sources, and pairs, of training sky


@dataclass(frozen=True)
class Blends:
    """Single and double sources as one survey, or all together, see them.

    tokens: by encoder, the 3 × 3 tokens around the token that holds the centre of light.
    separation: arcsec, 0 for one source. share: of the fainter one. peaks: found in the image.
    """

    survey: str
    tokens: dict[str, Float32[np.ndarray, "source feature"]]
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


_COLUMNS = ("snr", "is_pair", "separation", "share", "peaks", "unit", "is_train", "is_test")


def deblending(
    pairs: InjectedSky, encoders: Mapping[str, Encoder], settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """Rows of the group `deblending`: of each survey, and of all together, by separation.

    encoders: `model` and the controls `random` and `blank`. What has too few sources of either
    kind on training sky has no row.
    """
    tokens = nearest_tokens(pairs)
    surveys = sorted(pairs.store.surveys)
    seen = {
        survey: features(pairs, survey, encoders, tokens, settings.edge_tokens)
        for survey in surveys
    }
    every = [_blends(pairs, survey, [survey], seen[survey]) for survey in surveys]
    if len(surveys) > 1:
        every.append(_blends(pairs, BOTH, surveys, joined([seen[s] for s in surveys])))
    unit = units_of(pairs)[1]
    return [
        {**row, "field": pairs.name, "interval_unit": unit}
        for blends in every
        for row in deblending_rows(blends, settings)
    ]


def _blends(
    sky: InjectedSky, survey: str, surveys: list[str], seen: Mapping[str, Mapping[str, np.ndarray]]
) -> Blends:
    """The sources that have all their tokens. Of several surveys, the most peaks count."""
    split = np.asarray(sky.sources["split"]).astype(str)
    whole = Blends(
        survey=survey,
        tokens={name: own[TOKENS] for name, own in seen.items() if TOKENS in own},
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


def deblending_rows(blends: Blends, settings: EvaluateConfig) -> list[dict[str, Any]]:
    """A row a range of separations, for all S/N together (`snr` is None) and for each S/N."""
    train, test = blends.part(blends.is_train), blends.part(blends.is_test)
    if min(np.count_nonzero(train.is_pair), np.count_nonzero(~train.is_pair)) < FEWEST:
        return []
    answers = _answers(train, test, settings)
    levels = np.unique(test.snr)
    rows: list[dict[str, Any]] = []
    for snr in (None, *(levels.tolist() if len(levels) > 1 else [])):
        at_level = np.ones(len(test.snr), bool) if snr is None else test.snr == snr
        rows += _rows(test, answers, at_level, snr, settings)
    return rows


@dataclass(frozen=True)
class _Answers:
    """Of test sources. score: by encoder, above 0 for two; `shuffled` has the model's scores of
    other sources. share: of the fainter, as if there were two; constant_share: the best constant.
    chosen: form of the model's probe."""

    score: dict[str, Float[np.ndarray, " source"]]
    share: dict[str, Float[np.ndarray, " source"]]
    constant_share: float
    chosen: Form


def _answers(train: Blends, test: Blends, settings: EvaluateConfig) -> _Answers:
    two = np.where(train.is_pair, 1.0, -1.0)
    pairs = train.part(train.is_pair)
    score: dict[str, np.ndarray] = {}
    share: dict[str, np.ndarray] = {}
    chosen = LINEAR
    for name in ("model", "random", "blank"):
        if name not in train.tokens:
            continue
        kinds = (LINEAR,) if name == "blank" else (LINEAR, MLP)
        own, asked = train.tokens[name], test.tokens[name]
        both = np.concatenate([asked, own])
        found, form = _predict(own, two, both, train.unit, kinds, settings.seed)
        at_test, at_train = np.split(found, [len(asked)])
        # Zero lies midway between the two kinds, however many there are of each.
        score[name] = at_test - (at_train[two > 0].mean() + at_train[two < 0].mean()) / 2
        chosen = form if name == "model" else chosen
        own = pairs.tokens[name]
        share[name], _ = _predict(own, pairs.share, asked, pairs.unit, (form,), settings.seed)
    # A probe of shuffled labels would not do: who ranks by any direction ranks well or badly.
    score["shuffled"] = np.random.default_rng(settings.seed).permutation(score["model"])
    return _Answers(score, share, float(np.median(pairs.share)), chosen)


def _predict(
    x: Float32[np.ndarray, "source feature"],
    y: Float[np.ndarray, " source"],
    asked: Float32[np.ndarray, "test feature"],
    unit: Int[np.ndarray, " source"],
    kinds: tuple[Form, ...],
    seed: int,
) -> tuple[Float[np.ndarray, " test"], Form]:
    """What the better form of probe predicts, chosen on a part of training sky that it has not
    seen."""
    chosen = kinds[0]
    if len(kinds) > 1:
        out = folds(len(x), PARTS, seed, unit) == 0
        tried = {kind: _fitted(kind, x[~out], y[~out], x[out], unit[~out], seed) for kind in kinds}
        chosen = min(kinds, key=lambda kind: float(np.mean((tried[kind] - y[out]) ** 2)))
    return _fitted(chosen, x, y, asked, unit, seed), chosen


def _fitted(
    kind: Form, x: np.ndarray, y: np.ndarray, asked: np.ndarray, unit: np.ndarray, seed: int
) -> Float[np.ndarray, " asked"]:
    if kind == MLP:
        reduce = components(x, seed)
        x, asked = reduce.transform(x), reduce.transform(asked)
    return fit_probe(kind, x, y[:, None], seed, unit).predict(asked)[:, 0]


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
        limits = _intervals(score["model"], two, unit, settings)
        for name, figure in (("accuracy", _accuracy), ("auc", _auc)):
            row[name] = figure(score["model"], two)
            row[f"{name}_low"], row[f"{name}_high"] = limits[name]
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
    low, high = interval(
        lambda drawn: scatter(errors["model"][drawn]), unit, settings.resamples, settings.seed
    )
    figures = {"share_scatter": scatter(errors["model"])}
    figures |= {"share_scatter_low": low, "share_scatter_high": high}
    figures |= {f"{k}_share_scatter": scatter(e) for k, e in errors.items() if k != "model"}
    return figures | {"constant_share_scatter": scatter(answers.constant_share - truth)}


def _accuracy(score: Float[np.ndarray, " source"], two: Bool[np.ndarray, " source"]) -> float:
    """Mean of the shares of pairs and of single sources that are told right: .5 is chance."""
    right = (score > 0) == two
    return float((right[two].mean() + right[~two].mean()) / 2)


def _auc(score: Float[np.ndarray, " source"], two: Bool[np.ndarray, " source"]) -> float:
    """Chance that a pair scores above a single source (Mann & Whitney 1947); ties count half."""
    return float(_above(score, two).mean())


def _above(
    score: Float[np.ndarray, " source"], two: Bool[np.ndarray, " source"]
) -> Float[np.ndarray, "pair single"]:
    pairs, singles = score[two][:, None], score[~two]
    return (pairs > singles) + 0.5 * (pairs == singles)


def _intervals(
    score: Float[np.ndarray, " source"],
    two: Bool[np.ndarray, " source"],
    unit: Int[np.ndarray, " source"],
    settings: EvaluateConfig,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of accuracy and AUC, units of sky drawn with replacement.

    Both are ratios of sums over units, or over pairs of units, so that a draw is but a weight of
    each unit.
    """
    n = int(unit.max()) + 1
    rng = np.random.default_rng(settings.seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=settings.resamples).astype(float)
    right = (score > 0) == two
    pairs, singles = (np.bincount(unit[kind], minlength=n) for kind in (two, ~two))
    right_pairs, right_singles = (
        np.bincount(unit[kind], right[kind], minlength=n) for kind in (two, ~two)
    )
    of_unit = np.eye(n)
    above = of_unit[:, unit[two]] @ _above(score, two) @ of_unit[unit[~two]]
    known = (drawn @ pairs > 0) & (drawn @ singles > 0)
    drawn = drawn[known]
    if not len(drawn):
        return dict.fromkeys(("accuracy", "auc"), (np.nan, np.nan))
    found = {
        "accuracy": (drawn @ right_pairs / (drawn @ pairs))
        + (drawn @ right_singles / (drawn @ singles)),
        "auc": ((drawn @ above) * drawn).sum(axis=1) / ((drawn @ pairs) * (drawn @ singles)),
    }
    found["accuracy"] /= 2
    limits = {name: np.percentile(values, PERCENTILES) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}
