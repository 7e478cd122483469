"""What is lost when an encoder is not shown everything: figures with one band or survey withheld.

The encoders stay as they are; only what they are given changes. Any figure can take part: it says
of which surveys it needs tokens, and measures itself with the bands that it is given.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import sky_units
from jaisp.evaluate.compare import paired_interval
from jaisp.evaluate.means import Means, directed, mean_tokens
from jaisp.evaluate.outcomes import Outcomes, patches_of
from jaisp.evaluate.retrieval import UNDERPOWERED, WIDEST, Contest
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.statistic import Statistic, figure_of
from jaisp.evaluate.views import (
    EncodedSky,
    Side,
    crop_of,
    encode_sky,
)
from jaisp.sampling import evenly
from jaisp.store.reader import Store

MEAN_PATCHES = 4

# The bands given of each survey; a survey that is taken away is absent.
Bands = Mapping[str, list[str]]


@dataclass(frozen=True)
class Measured:
    """One figure, source by source: names as in `Outcomes.add`, values of the model and of each
    control."""

    sources: np.ndarray
    values: Float[np.ndarray, "source column"]
    controls: dict[str, Float[np.ndarray, "source column"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A figure that can be measured with less than everything.

    surveys: of which bands are withheld. measure: gives the figure from some bands, None where it
    can't be measured. statistic: what it is of its values; of `scatter` less is better. whole:
    it can do without a survey. enough: sources below which a row is underpowered.
    """

    name: str
    surveys: Sequence[str]
    measure: Callable[[Bands], Measured | None]
    statistic: Statistic = "mean"
    whole: bool = False
    enough: int = UNDERPOWERED


@dataclass(frozen=True)
class Missing:
    """What of a survey is withheld: a band, or, where that is None, all of it."""

    survey: str
    band: str | None = None


def missing_of(bands: Bands, everything: Bands) -> Missing | None:
    """What is withheld; None where nothing is."""
    for survey, own in everything.items():
        if survey not in bands:
            return Missing(survey)
        for band in own:
            if band not in bands[survey]:
                return Missing(survey, band)
    return None


def withheld(
    figures: Sequence[Figure],
    bands: Bands,
    settings: EvaluateConfig,
    outcomes: Outcomes | None = None,
) -> list[dict[str, Any]]:
    """Rows of the group `withheld`: each figure, with each band and survey taken away.

    bands: all bands of every survey. `loss` is above 0 where the figure gets worse.
    """
    rows = []
    for figure in figures:
        complete = figure.measure(bands)
        if complete is None:
            continue
        for survey, name, given in _with_one_less(figure, bands):
            part = figure.measure(given)
            if part is None:
                continue
            row = {"survey": survey, "withheld": name, "figure": figure.name}
            figures_of = _row(figure, complete, part)
            if figures_of["n"]:
                rows.append(row | figures_of)
                if outcomes is not None:
                    outcomes.add("withheld", row, part.sources, part.values, figure.statistic)
    return rows


def _with_one_less(figure: Figure, bands: Bands) -> Iterator[tuple[str, str, Bands]]:
    """Survey, what of it is withheld, and what is left."""
    for survey in figure.surveys:
        for band in bands[survey] if len(bands[survey]) > 1 else []:
            left = [other for other in bands[survey] if other != band]
            yield survey, band, {**bands, survey: left}
        if figure.whole and len(figure.surveys) > 1:
            yield survey, survey, {s: own for s, own in bands.items() if s != survey}


def _row(figure: Figure, complete: Measured, part: Measured) -> dict[str, Any]:
    """The figure on the sources that both have, complete and in part, with every control's."""
    _, i, j = np.intersect1d(complete.sources, part.sources, return_indices=True)
    names, patch = np.unique(patches_of(complete.sources[i]), return_inverse=True)
    units, unit = sky_units(patch, [str(name).rpartition("/")[0] for name in names])
    sign = -1 if figure.statistic == "scatter" else 1
    row: dict[str, Any] = {"n": len(i)}
    everyone = {"": (complete.values, part.values)} | {
        f"{name}_": (complete.controls[name], part.controls[name])
        for name in complete.controls
        if name in part.controls
    }
    for prefix, (whole, less) in everyone.items():
        value, all_of_it = (figure_of(figure.statistic, own) for own in (less[j], whole[i]))
        row[f"{prefix}value"], row[f"{prefix}complete"] = value, all_of_it
        row[f"{prefix}loss"] = sign * (all_of_it - value)
    limits = paired_interval(figure.statistic, part.values[j], complete.values[i], units)
    row["loss_low"], row["loss_high"] = sorted(sign * limit for limit in limits)
    return row | {"interval_unit": unit, "underpowered": len(i) < figure.enough}


def retrieval_figures(
    store: Store,
    train: Int[np.ndarray, " patch"],
    sky: EncodedSky,
    means: Means,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> list[Figure]:
    """Top-1 among the sources of the field, of every ordered pair; the query's bands withheld.

    sky: the test patches with everything shown, of which `withheld_patches` are taken evenly, as
    `encode_sky` made it with `model`, `random` and `pixels` among `encoders`; train: patches that
    tell the mean tokens.
    """
    asker = _Asker(store, train[evenly(len(train), MEAN_PATCHES)], sky, means, encoders, settings)
    return [
        Figure(f"retrieval top1 {query}>{target}", (query,), asker.of(query, target))
        for query, target in permutations(sky.surveys, 2)
    ]


class _Asker:
    """Asks retrieval's questions with some of the query's bands."""

    controls = ("shuffled", "random", "pixels")

    def __init__(
        self,
        store: Store,
        train: Int[np.ndarray, " patch"],
        sky: EncodedSky,
        means: Means,
        encoders: Mapping[str, Encoder],
        settings: EvaluateConfig,
    ) -> None:
        self.store, self.train, self.settings = store, train, settings
        self.sky = _some_patches(sky, evenly(len(sky.patches), settings.withheld_patches))
        self.means = means
        self.encoders = {name: encoders[name] for name in ("model", "random", "pixels")}
        self._known: dict[tuple[str, str], dict[tuple[str, ...], tuple[Side, Any]]] = {}

    def of(self, query: str, target: str) -> Callable[[Bands], Measured | None]:
        """Measures one ordered pair."""

        def measure(bands: Bands) -> Measured | None:
            asking, asked = (query, crop_of(query, target)), (target, crop_of(target, query))
            side, mean = self._seen(asking)[tuple(bands[query])]
            sky = replace(
                self.sky,
                sides={asking: side, asked: self.sky.sides[asked]},
                bands={**self.sky.bands, query: bands[query]},
            )
            means = {**self.means, query: mean}
            contest = Contest(directed(sky, means), query, target, self.settings)
            if not len(contest.sources) or not all(
                "model" in s.vectors for s in sky.sides.values()
            ):
                return None
            contest.run(self.controls)
            found = {
                name: (ranks[WIDEST].rank < 1)[:, None] * 1.0
                for name, ranks in contest.ranks.items()
            }
            names = np.array(contest.sources.names(self.sky))
            return Measured(names, found.pop("model"), found)

        return measure

    def _seen(self, asking: tuple[str, str]) -> dict[tuple[str, ...], tuple[Side, Any]]:
        """By the bands that are shown, tokens of the query's side and their mean: with everything,
        and without each of the bands."""
        if asking not in self._known:
            survey, crop = asking
            every = self.sky.bands[survey]
            given = [every, *([b for b in every if b != one] for one in every if len(every) > 1)]
            shown = {" ".join(bands): (survey, bands) for bands in given}
            # Also with everything shown from these few patches, so that losses have one mean.
            seeing = {name: self.encoders[name] for name in ("model", "random")}
            means = mean_tokens(self.store, self.train, seeing, self.settings, shown)
            numbers = np.array([self.store[name].number for name in self.sky.patches])
            known = (self.store, numbers, self.sky.catalogues, self.encoders, self.settings)
            less = dict(list(shown.items())[1:])
            sides = encode_sky(*known, less, [(name, crop) for name in less]).sides
            self._known[asking] = {
                tuple(bands): (sides.get((name, crop), self.sky.sides[asking]), means[name])
                for name, (_, bands) in shown.items()
            }
        return self._known[asking]


def _some_patches(sky: EncodedSky, places: Int[np.ndarray, " place"]) -> EncodedSky:
    return replace(
        sky,
        patches=[sky.patches[i] for i in places],
        catalogues=[sky.catalogues[i] for i in places],
        corners={crop: corners[places] for crop, corners in sky.corners.items()},
        sides={
            key: Side({n: v[places] for n, v in side.vectors.items()}, side.valid[places])
            for key, side in sky.sides.items()
        },
    )
