"""Does a token of one survey find the same sky among the tokens of another?

For every ordered pair of surveys, one query token a source. Similarity is the cosine of tokens
as `encode` gives them, less their mean over training sky. docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import mean_interval, mean_intervals, sky_units
from jaisp.evaluate.controls import pixel_layers, pixel_stamps
from jaisp.evaluate.means import Means, directed
from jaisp.evaluate.neighbours import chance_of_sharing, shared_neighbours
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.search import Ranks, search
from jaisp.evaluate.views import EncodedSky, crop_of

UNDERPOWERED = 20
SHOWN = 40
CONTROLS = ("shuffled", "blank", "random", "pixels")
WIDEST = ("source", "field")


@dataclass(frozen=True)
class Sources:
    """Sources of a pair of surveys, one a token. patch: index into the sky's patches. token: row
    and column in the patch."""

    patch: Int[np.ndarray, " source"]
    token: Int[np.ndarray, "source 2"]

    def __len__(self) -> int:
        return len(self.patch)

    def places(self, side: int) -> Int[np.ndarray, " source"]:
        """Each source's place among the flattened tokens of patches of `side` tokens."""
        return (self.patch * side + self.token[:, 0]) * side + self.token[:, 1]

    def tokens(
        self, sky: EncodedSky, survey: str, crop: str, encoder: str
    ) -> Float[np.ndarray, "source dimension"]:
        """Each source's token as an encoder gives it."""
        row, column = self.token.T
        return sky.sides[survey, crop].vectors[encoder][self.patch, row, column]

    def names(self, sky: EncodedSky) -> list[str]:
        """CELL/ROW/row.column of each source, the same in every run on the same patches."""
        tokens = zip(self.patch, self.token, strict=True)
        return [f"{sky.patches[patch]}/{row}.{column}" for patch, (row, column) in tokens]


def find_sources_of(
    sky: EncodedSky,
    sides: Sequence[tuple[str, str]],
    surveys: Sequence[str],
    settings: EvaluateConfig,
) -> Sources:
    """Sources above `snr_min` in every one of `surveys`, whose token is valid on each of `sides`
    (survey and crop)."""
    patches, tokens = [np.zeros(0, int)], [np.zeros((0, 2), int)]
    for place, catalogue in enumerate(sky.catalogues):
        if not all(survey in catalogue.snr for survey in surveys):
            continue
        chosen = catalogue.select(surveys, settings.snr_min, sky.token_arcsec)
        kept = catalogue.tokens(sky.token_arcsec)[chosen]
        for side in sides:
            valid = sky.sides[side].valid[place]
            kept = kept[((kept >= 0) & (kept < len(valid))).all(axis=1)]
            kept = kept[valid[kept[:, 0], kept[:, 1]]]
        patches.append(np.full(len(kept), place))
        tokens.append(kept)
    return Sources(np.concatenate(patches), np.concatenate(tokens))


def retrieval(
    sky: EncodedSky,
    means: Means,
    settings: EvaluateConfig,
    outcomes: Outcomes | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the group `retrieval` for every ordered pair of surveys, and what plots show.

    means: what is subtracted from tokens. outcomes: where every source's outcome is kept. A pair
    without a source in both surveys has no row.
    """
    rows, plots = [], []
    for contest in contests(sky, means, settings):
        rows += contest.rows()
        plots.append(contest.plot())
        if outcomes is not None:
            contest.keep(outcomes, ("top1", "top5", "within_one"))
    return rows, plots


def contests(sky: EncodedSky, means: Means, settings: EvaluateConfig) -> Iterator["Contest"]:
    """Every ordered pair of surveys that has sources, asked."""
    sky = directed(sky, means)
    for query, target in permutations(sky.surveys, 2):
        contest = Contest(sky, query, target, settings)
        sides = (sky.sides[side] for side in (contest.asking, contest.asked))
        if len(contest.sources) and all("model" in side.vectors for side in sides):
            contest.run()
            yield contest


class Contest:
    """One ordered pair of surveys: the model and its controls, asked the same questions.

    sky: as vectors of length one.
    """

    def __init__(self, sky: EncodedSky, query: str, target: str, settings: EvaluateConfig) -> None:
        self.sky, self.query, self.target = sky, query, target
        self.settings = settings
        self.asking = (query, crop_of(query, target))
        self.asked = (target, crop_of(target, query))
        both = (query, target)
        self.sources = find_sources_of(sky, (self.asking, self.asked), both, settings)
        among = find_sources_of(sky, (self.asked,), both, settings)
        side = sky.sides[self.asked].valid.shape[1]
        self.right, self.among = self.sources.places(side), among.places(side)

    def run(self, controls: Sequence[str] = CONTROLS) -> None:
        """Ask the model and the controls."""
        rng = np.random.default_rng(self.settings.seed)
        # A cyclic shift along a random order leaves no pair in place.
        order = rng.permutation(len(self.sources))
        partner = np.empty_like(order)
        partner[order] = np.roll(order, 1)
        self.shown = np.sort(order[:SHOWN])
        self.pixel_bands = self._best_pixels()
        self.ranks: dict[str, dict[tuple[str, str], Ranks]] = {}
        self.sharing: dict[str, np.ndarray] = {}
        for name in ("model", *controls):
            encoder = "model" if name == "shuffled" else name
            bands = self.pixel_bands if name == "pixels" else (None, None)
            asked = self._at_sources(self.asking, encoder, bands[0])
            given = self._tokens(self.asked, encoder, bands[1])
            asked = asked[partner] if name == "shuffled" else asked
            self.ranks[name] = search(
                asked,
                given,
                self.sky.sides[self.asked].valid,
                self.right,
                self.among,
                self.settings.window_tokens,
            )
            right = given.reshape(-1, given.shape[-1])[self.right]
            self.sharing[name] = shared_neighbours(asked, right, self.sources.patch)

    def rows(self) -> list[dict[str, Any]]:
        """One row a kind of candidates and scope."""
        units, unit = sky_units(self.sources.patch, self.sky.cells)
        return [
            {
                "query": self.query,
                "target": self.target,
                "tokens": scope[0],
                "scope": scope[1],
                "candidates": round(float(ranks.candidates.mean())),
                "snr_min": self.settings.snr_min,
                "n": len(self.sources),
                **self._figures(ranks, units),
                "chance_top1": float((1 / ranks.candidates).mean()),
                **{f"{name}_top1": _top1(self.ranks[name][scope]) for name in CONTROLS},
                "pixels_bands": ":".join(self.pixel_bands),
                **(self._neighbours(units) if scope == WIDEST else {}),
                "interval_unit": unit,
                "underpowered": len(self.sources) < UNDERPOWERED,
            }
            for scope, ranks in self.ranks["model"].items()
        ]

    def keep(self, outcomes: Outcomes, figures: Sequence[str]) -> None:
        """Add the outcome of every source in some of the figures of every row."""
        names = self.sources.names(self.sky)
        for (tokens, scope), ranks in self.ranks["model"].items():
            row = {"query": self.query, "target": self.target, "tokens": tokens, "scope": scope}
            values = _values(ranks)
            for figure in figures:
                outcomes.add("retrieval", row | {"figure": figure}, names, values[figure])
        if np.isfinite(self.sharing["model"]).any():
            row = {"query": self.query, "target": self.target, "figure": "mknn10"}
            row |= dict(zip(("tokens", "scope"), WIDEST, strict=True))
            outcomes.add("retrieval", row, names, self.sharing["model"])

    def plot(self) -> dict[str, Any]:
        """Ranks among all sources, and the similarity of some, for the plots."""
        asked, given = (self._at_sources(side, "model") for side in (self.asking, self.asked))
        return {
            "query": self.query,
            "target": self.target,
            "candidates": len(self.among),
            "ranks": {
                name: np.sort(found[WIDEST].rank).tolist() for name, found in self.ranks.items()
            },
            "similarity": asked[self.shown] @ given[self.shown].T,
        }

    def _figures(self, ranks: Ranks, units: Int[np.ndarray, " source"]) -> dict[str, Any]:
        values = _values(ranks)
        limits = mean_intervals(
            np.stack(list(values.values())), units, self.settings.resamples, self.settings.seed
        )
        figures: dict[str, Any] = {}
        for (name, own), (low, high) in zip(values.items(), limits.tolist(), strict=True):
            figures |= {name: float(own.mean()), f"{name}_low": low, f"{name}_high": high}
        wrong = np.isfinite(ranks.gap)
        figures["separation"] = figures["separation_low"] = figures["separation_high"] = None
        if wrong.any():
            figures["separation"] = float(ranks.gap[wrong].mean())
            figures["separation_low"], figures["separation_high"] = self._limits(
                ranks.gap[wrong], units[wrong]
            )
        return figures

    def _neighbours(self, units: Int[np.ndarray, " source"]) -> dict[str, Any]:
        """Share of the nearest sources that both surveys' tokens have in common."""
        shares = self.sharing["model"]
        known = np.isfinite(shares)
        if not known.any():
            return dict.fromkeys(_SHARING)
        low, high = self._limits(shares[known], units[known])
        figures = {"mknn10": float(shares[known].mean()), "mknn10_low": low, "mknn10_high": high}
        figures["chance_mknn10"] = chance_of_sharing(self.sources.patch)
        for name in CONTROLS:
            figures[f"{name}_mknn10"] = float(self.sharing[name][known].mean())
        return figures

    def _limits(self, values: np.ndarray, units: np.ndarray) -> tuple[float, float]:
        present = np.unique(units, return_inverse=True)[1]
        return mean_interval(values, present, self.settings.resamples, self.settings.seed)

    def _at_sources(
        self, side: tuple[str, str], encoder: str, band: str | None = None
    ) -> Float[np.ndarray, "source dimension"]:
        """The tokens of the sources; of pixels, the stamps of one band."""
        places = np.column_stack([self.sources.patch, self.sources.token])
        return self._tokens_at(places, side, encoder, band)

    def _tokens(
        self, side: tuple[str, str], encoder: str, band: str | None = None
    ) -> Float[np.ndarray, "patch row column dimension"]:
        """All tokens of a side; of pixels, the stamps of one band."""
        if band is None:
            return self.sky.sides[side].vectors[encoder]
        shape = self.sky.sides[side].valid.shape
        places = np.indices(shape).reshape(len(shape), -1).T
        return self._tokens_at(places, side, encoder, band).reshape(*shape, -1)

    def _tokens_at(
        self,
        places: Int[np.ndarray, "token 3"],
        side: tuple[str, str],
        encoder: str,
        band: str | None,
    ) -> Float[np.ndarray, "token dimension"]:
        vectors = self.sky.sides[side].vectors[encoder]
        if band is None:
            patch, row, column = places.T
            return vectors[patch, row, column]
        return pixel_stamps(vectors, self._layers(side[0]).index(band), places)

    def _layers(self, survey: str) -> list[str]:
        return pixel_layers(self.sky.bands[survey])

    def _best_pixels(self) -> tuple[str, str]:
        """The bands whose pixels find most sources here: the strongest form of this control."""
        choices = [self._layers(side[0]) for side in (self.asking, self.asked)]
        if max(map(len, choices)) == 1:
            return choices[0][0], choices[1][0]
        asked, given = (
            {band: self._at_sources(side, "pixels", band) for band in bands}
            for side, bands in zip((self.asking, self.asked), choices, strict=True)
        )

        def found(pair: tuple[str, str]) -> float:
            similarity = asked[pair[0]] @ given[pair[1]].T
            return float((similarity.argmax(axis=1) == np.arange(len(similarity))).mean())

        return max(product(asked, given), key=found)


_SHARING = (
    "mknn10", "mknn10_low", "mknn10_high", "chance_mknn10", *(f"{c}_mknn10" for c in CONTROLS),
)  # fmt: skip


def _values(ranks: Ranks) -> dict[str, Float[np.ndarray, " source"]]:
    """What the figures are the means of."""
    return {
        "top1": (ranks.rank < 1) * 1.0,
        "top5": (ranks.rank < 5) * 1.0,
        "within_one": ranks.within * 1.0,
        "mean_reciprocal_rank": 1 / (1 + ranks.rank),
    }


def _top1(ranks: Ranks) -> float:
    return float((ranks.rank < 1).mean())
