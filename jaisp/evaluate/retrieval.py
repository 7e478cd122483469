"""Does a token of one survey find the same sky among the tokens of another?

For every ordered pair of surveys, one query token a source. Similarity is the cosine of tokens
as `encode` gives them, less their survey's mean over training sky. docs/ruler.md defines every
figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import mean_interval, sky_units
from jaisp.evaluate.controls import ALL_BANDS, STAMP
from jaisp.evaluate.neighbours import shared_neighbours
from jaisp.evaluate.search import Ranks, directions, search
from jaisp.evaluate.views import EncodedSky, crop_of

UNDERPOWERED = 20
SHOWN = 40

Means = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Sources:
    """Sources of a pair of surveys, one a token. patch: index into the sky's patches. token: row
    and column in the patch."""

    patch: Int[np.ndarray, " source"]
    token: Int[np.ndarray, "source 2"]

    def __len__(self) -> int:
        return len(self.patch)

    def places(self, sky: EncodedSky, survey: str, crop: str) -> Int[np.ndarray, " source"]:
        """Each source's place among the flattened tokens of a survey's crops."""
        row, column = (self.token - sky.corners[crop][self.patch]).T
        shape = sky.sides[survey, crop].valid.shape
        return np.asarray(np.ravel_multi_index((self.patch, row, column), shape))

    def tokens(
        self, sky: EncodedSky, survey: str, crop: str, encoder: str
    ) -> Float[np.ndarray, "source dimension"]:
        """Each source's token as an encoder gives it."""
        vectors = sky.sides[survey, crop].vectors[encoder]
        return vectors.reshape(-1, vectors.shape[-1])[self.places(sky, survey, crop)]


def find_sources_of(
    sky: EncodedSky,
    sides: Sequence[tuple[str, str]],
    surveys: Sequence[str],
    settings: EvaluateConfig,
    edge_tokens: int | None = None,
) -> Sources:
    """Sources above `snr_min` in every one of `surveys`, whose token is valid on each of `sides`
    (survey and crop) and `edge_tokens` (default: the config's) inside its crop."""
    edge = settings.edge_tokens if edge_tokens is None else edge_tokens
    patches, tokens = [np.zeros(0, int)], [np.zeros((0, 2), int)]
    for place, catalogue in enumerate(sky.catalogues):
        if not all(survey in catalogue.snr for survey in surveys):
            continue
        chosen = catalogue.select(surveys, settings.snr_min, sky.token_arcsec)
        kept = catalogue.tokens(sky.token_arcsec)[chosen]
        for survey, crop in sides:
            valid = sky.sides[survey, crop].valid[place]
            in_crop = kept - sky.corners[crop][place]
            inside = ((in_crop >= edge) & (in_crop < len(valid) - edge)).all(axis=1)
            kept, in_crop = kept[inside], in_crop[inside]
            kept = kept[valid[in_crop[:, 0], in_crop[:, 1]]]
        patches.append(np.full(len(kept), place))
        tokens.append(kept)
    return Sources(np.concatenate(patches), np.concatenate(tokens))


def retrieval(
    sky: EncodedSky, means: Means, settings: EvaluateConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the group `retrieval` for every ordered pair of surveys, and what plots show.

    means: by survey and encoder, the mean token that is subtracted. A pair without a source in
    both surveys has no row.
    """
    rows, plots = [], []
    for query, target in permutations(sky.surveys, 2):
        contest = _Contest(sky, query, target, means, settings)
        if len(contest.sources):
            contest.run()
            rows += contest.rows()
            plots.append(contest.plot())
    return rows, plots


class _Contest:
    """One ordered pair of surveys: the model and its controls, asked the same questions."""

    def __init__(
        self,
        sky: EncodedSky,
        query: str,
        target: str,
        means: Means,
        settings: EvaluateConfig,
    ) -> None:
        self.sky, self.query, self.target = sky, query, target
        self.means, self.settings = means, settings
        self.asking = (query, crop_of(query, target))
        self.asked = (target, crop_of(target, query))
        both = (query, target)
        self.sources = find_sources_of(sky, (self.asking, self.asked), both, settings)
        among = find_sources_of(sky, (self.asked,), both, settings, edge_tokens=0)
        self.right = self.sources.places(sky, *self.asked)
        self.among = among.places(sky, *self.asked)

    def run(self) -> None:
        """Ask the model and every control."""
        rng = np.random.default_rng(self.settings.seed)
        # A cyclic shift along a random order leaves no pair in place.
        order = rng.permutation(len(self.sources))
        partner = np.empty_like(order)
        partner[order] = np.roll(order, 1)
        self.shown = np.sort(order[:SHOWN])
        self.pixel_bands = self._best_pixels()
        query_band, target_band = self.pixel_bands
        self.neighbours = {
            "": self._neighbours("model"),
            "shuffled_": self._neighbours("model", partner),
            "blank_": self._neighbours("blank"),
            "random_": self._neighbours("random"),
            "pixels_": self._neighbours("pixels", bands=(query_band, target_band)),
        }
        self.model = self._search("model")
        self.controls = {
            "shuffled": self._search("model", partner=partner),
            "blank": self._search("blank"),
            "random": self._search("random"),
            "pixels": self._search("pixels", bands=(query_band, target_band)),
        }

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
                **{f"{name}_top1": _top1(found[scope]) for name, found in self.controls.items()},
                "pixels_bands": ":".join(self.pixel_bands),
                **{
                    f"{name}mknn10": value if scope == ("source", "field") else None
                    for name, value in self.neighbours.items()
                },
                "interval_unit": unit,
                "underpowered": len(self.sources) < UNDERPOWERED,
            }
            for scope, ranks in self.model.items()
        ]

    def plot(self) -> dict[str, Any]:
        """Ranks among all sources, and the similarity of some, for the plots."""
        asked, given = (self._at_sources(side, "model") for side in (self.asking, self.asked))
        everyone = {"model": self.model, **self.controls}
        return {
            "query": self.query,
            "target": self.target,
            "candidates": len(self.among),
            "ranks": {
                name: np.sort(found["source", "field"].rank).tolist()
                for name, found in everyone.items()
            },
            "similarity": asked[self.shown] @ given[self.shown].T,
        }

    def _figures(self, ranks: Ranks, units: Int[np.ndarray, " source"]) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for name, values in {
            "top1": ranks.rank < 1,
            "top5": ranks.rank < 5,
            "within_one": ranks.within,
            "mean_reciprocal_rank": 1 / (1 + ranks.rank),
        }.items():
            settings = self.settings
            limits = mean_interval(values * 1.0, units, settings.resamples, settings.seed)
            figures[name] = float(values.mean())
            figures[f"{name}_low"], figures[f"{name}_high"] = limits
        wrong = np.isfinite(ranks.gap)
        figures["separation"] = float(ranks.gap[wrong].mean()) if wrong.any() else None
        return figures

    def _at_sources(
        self, side: tuple[str, str], encoder: str, band: str | None = None
    ) -> Float[np.ndarray, "source dimension"]:
        """Directions of the sources' tokens."""
        tokens = self.sources.tokens(self.sky, *side, encoder)
        return self._directions(tokens, side[0], encoder, band)

    def _directions(
        self, tokens: np.ndarray, survey: str, encoder: str, band: str | None
    ) -> Float[np.ndarray, "*place dimension"]:
        if band is None:
            return directions(tokens, self.means[survey][encoder])
        # Pixels come without a mean to subtract: each stamp has its own taken off.
        first = self._bands(survey).index(band) * STAMP
        return directions(tokens[..., first : first + STAMP], np.zeros(STAMP))

    def _search(
        self,
        encoder: str,
        partner: Int[np.ndarray, " source"] | None = None,
        bands: tuple[str | None, str | None] = (None, None),
    ) -> dict[tuple[str, str], Ranks]:
        """Ranks of an encoder's tokens, with the queries re-paired if there is a `partner`."""
        asked = self._at_sources(self.asking, encoder, bands[0])
        asked = asked if partner is None else asked[partner]
        side = self.sky.sides[self.asked]
        given = self._directions(side.vectors[encoder], self.target, encoder, bands[1])
        reach = self.settings.window_tokens
        return search(asked, given, side.valid, self.right, self.among, reach)

    def _neighbours(
        self,
        encoder: str,
        partner: Int[np.ndarray, " source"] | None = None,
        bands: tuple[str | None, str | None] = (None, None),
    ) -> float:
        """Share of neighbours among the sources that both surveys' tokens have in common."""
        asked = self._at_sources(self.asking, encoder, bands[0])
        given = self._at_sources(self.asked, encoder, bands[1])
        return shared_neighbours(asked if partner is None else asked[partner], given)

    def _bands(self, survey: str) -> list[str]:
        return [*self.sky.bands[survey], ALL_BANDS]

    def _best_pixels(self) -> tuple[str, str]:
        """The bands whose pixels find most sources here: the strongest form of this control."""
        asked, given = (
            {band: self._at_sources(side, "pixels", band) for band in self._bands(side[0])}
            for side in (self.asking, self.asked)
        )

        def found(pair: tuple[str, str]) -> float:
            similarity = asked[pair[0]] @ given[pair[1]].T
            return float((similarity.argmax(axis=1) == np.arange(len(similarity))).mean())

        return max(product(asked, given), key=found)


def _top1(ranks: Ranks) -> float:
    return float((ranks.rank < 1).mean())
