"""What each survey, and each band, is worth to figures of known sources: fluxes, colours and
redshifts, sizes and shapes, and images.

Without a survey, the other's own probes are read; without a band, those that were fitted with
everything are read unchanged, on the sources of a few test patches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.known import KnownSky
from jaisp.evaluate.morphology import TARGETS, morphology_targets
from jaisp.evaluate.photometry import Target
from jaisp.evaluate.reconstruction import Decoder, images
from jaisp.evaluate.regression import (
    FEWEST_TEST,
    SHUFFLED,
    UNDERPOWERED,
    Answers,
    Regression,
)
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.seen import BOTH, Seen, own_and_mean
from jaisp.evaluate.statistic import pearson_sums
from jaisp.evaluate.withheld import Bands, Figure, Measured, Missing, missing_of
from jaisp.evaluate.withheld_bands import LOOKING, few_of, tokens_without

# What is answered, and from whose tokens; who was taught wrong pairs reads the right ones.
READERS = {"model": "model", "random": "random", SHUFFLED: "model"}


@dataclass(frozen=True)
class KnownWithout:
    """Known sources as the encoders see them with everything, and with less.

    few: the test sources that were looked at again. without: by what is missing, what the encoders
    say of these.
    """

    known: KnownSky
    seen: Seen
    few: Int[np.ndarray, " few"]
    without: dict[Missing, Seen]

    @property
    def everything(self) -> Bands:
        """All bands of every survey."""
        return {survey: list(bands) for survey, bands in self.seen.shown.values()}

    @property
    def whole(self) -> str:
        """The view of all surveys together."""
        return BOTH if BOTH in self.seen.views else next(iter(self.seen.views))


def known_without(
    known: KnownSky, seen: Seen, encoders: Mapping[str, Encoder], settings: EvaluateConfig
) -> KnownWithout:
    """Look at some test sources again, without each of the bands, which are encoded once.

    seen: every survey under its own name, with the reductions that are applied again.
    """
    few = few_of(known.sky, settings.withheld_patches)
    part = seen.part(few)
    without = {}
    for survey in seen.shown:
        sky, places = known.sky.part(few), known.tokens[few]
        found = tokens_without(sky, survey, encoders, places, settings.edge)
        for band, raw in found.items():
            reduced = {name: seen.reductions[survey][name].apply(raw[name]) for name in LOOKING}
            tokens = {name: own_and_mean(raw[name]) for name in LOOKING}
            less = replace(
                part,
                components={**part.components, survey: reduced},
                tokens={**part.tokens, survey: tokens},
            )
            without[Missing(survey, band)] = less
    return KnownWithout(known, seen, np.flatnonzero(few), without)


def photometry_figures(
    sky: KnownWithout, targets: Sequence[Target], fitted: Mapping[str, Regression]
) -> list[Figure]:
    """Scatter of each flux, colour and the redshift, read off the tokens of all surveys."""
    truth = {target.name: target.values for target in targets}
    return _scatters("photometry", sky, truth, fitted)


def morphology_figures(sky: KnownWithout, fitted: Mapping[str, Regression]) -> list[Figure]:
    """Scatter of size and ellipticity, read off the tokens of all surveys."""
    if not fitted:
        return []
    truth = dict(zip(TARGETS, morphology_targets(sky.known).T, strict=True))
    return _scatters("morphology", sky, truth, fitted)


def reconstruction_figures(sky: KnownWithout, decoders: Sequence[Decoder]) -> list[Figure]:
    """Pearson's r of each band's images, decoded from another survey's tokens."""
    return [figure for decoder in decoders for figure in _correlations(sky, decoder)]


def _scatters(
    group: str,
    sky: KnownWithout,
    truth: Mapping[str, Float[np.ndarray, " source"]],
    fitted: Mapping[str, Regression],
) -> list[Figure]:
    names, everyone = sky.known.names, np.arange(len(sky.known))
    surveys = tuple(sky.everything)

    @cache
    def answered(missing: Missing | None) -> tuple[np.ndarray, Answers] | None:
        """Which sources are asked about, and what is answered."""
        if missing is None:
            return everyone, _read(fitted[sky.whole], sky.seen, sky.whole)
        if missing.band is None:
            left = [survey for survey in surveys if survey != missing.survey]
            # Several are read together only where all are.
            return None if len(left) > 1 else (everyone, _read(fitted[left[0]], sky.seen, left[0]))
        return sky.few, _read(fitted[sky.whole], sky.without[missing], sky.whole)

    def measure(number: int, values: np.ndarray) -> Callable[[Bands], Measured | None]:
        def of(bands: Bands) -> Measured | None:
            found = answered(missing_of(bands, sky.everything))
            if found is None:
                return None
            sources, answers = found
            off = {name: (own[:, number] - values[sources]) for name, own in answers.items()}
            tested = sky.known.is_test[sources] & np.isfinite(off["model"])
            if np.count_nonzero(tested) < FEWEST_TEST:
                return None
            errors = {name: own[tested, None] for name, own in off.items()}
            return Measured(names[sources[tested]], errors.pop("model"), errors)

        return of

    return [
        Figure(
            f"{group} scatter {name}",
            surveys,
            measure(number, values),
            "scatter",
            whole=True,
            enough=UNDERPOWERED,
        )
        for number, (name, values) in enumerate(truth.items())
    ]


def _correlations(sky: KnownWithout, decoder: Decoder) -> list[Figure]:
    survey, target = decoder.view, decoder.target
    names, asked = sky.known.names[sky.few], decoder.bright[sky.few]
    chosen = np.zeros(len(sky.known), bool)
    chosen[sky.few] = True
    truth = images(target.part(chosen, target.bands)) - decoder.means
    few = sky.seen.part(chosen)

    @cache
    def answered(missing: Missing | None) -> Answers:
        seen = few if missing is None else sky.without[missing]
        return _read(decoder.regression, seen, survey)

    def measure(number: int) -> Callable[[Bands], Measured | None]:
        def of(bands: Bands) -> Measured | None:
            answers = answered(missing_of(bands, sky.everything))
            found = {name: decoder.decode(own)[:, number] for name, own in answers.items()}
            tested = asked[:, number] & _whole(found["model"])
            if np.count_nonzero(tested) < FEWEST_TEST:
                return None
            own = truth[tested, number]
            sums = {name: pearson_sums(own, found[name][tested]) for name in found}
            return Measured(names[tested], sums.pop("model"), sums)

        return of

    return [
        Figure(
            f"reconstruction r {survey}>{target.survey}:{band}",
            (survey,),
            measure(number),
            "pearson",
            enough=UNDERPOWERED,
        )
        for number, band in enumerate(target.bands)
    ]


def _whole(image: Float[np.ndarray, "source y x"]) -> Bool[np.ndarray, " source"]:
    return np.isfinite(image).all(axis=(1, 2))


def _read(regression: Regression, seen: Seen, view: str) -> Answers:
    """What the model and the controls answer from a view of some sources."""
    return {name: regression.read(name, seen.of(view, whose)) for name, whose in READERS.items()}
