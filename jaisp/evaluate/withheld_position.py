"""What each survey, and each band, is worth to the position of sources that all surveys see."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.injected import TOKENS, Features, InjectedSky, features, reference_tokens
from jaisp.evaluate.position import (
    BOTH,
    UNDERPOWERED,
    Asked,
    Readouts,
    fit_readouts,
    together_of,
)
from jaisp.evaluate.views import Encoder
from jaisp.evaluate.withheld import Bands, Figure, Measured

CONTROLS = ("random", "shuffled", "constant")
LOOKING = ("model", "random")
NOWHERE = -1  # a token that is not asked for

BySnr = dict[float, Measured]


def position_figures(
    sky: InjectedSky,
    seen: Mapping[str, Features],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> list[Figure]:
    """Error of the position read off the tokens of all surveys, a figure a S/N, in mas.

    seen: from `position.seen_of` that sky. Without a survey, readouts are fitted anew on the tokens
    that are left; without a band, those that were fitted with everything are read unchanged.
    """
    surveys = tuple(sorted(seen))
    known: dict[tuple, BySnr] = {}
    whole = _fitted(sky, seen, settings)

    def measured(bands: Bands) -> BySnr:
        left = tuple(survey for survey in surveys if survey in bands)
        poorer = [s for s in left if bands[s] != sky.store.bands(s)]
        if left == surveys and not poorer:
            return {} if whole is None else _by_snr(*whole)
        if not poorer:
            fitted = _fitted(sky, {survey: seen[survey] for survey in left}, settings)
            return {} if fitted is None else _by_snr(*fitted)
        if whole is None or left != surveys or len(poorer) > 1:
            return {}
        (survey,) = poorer
        less = _seen_with(sky, survey, bands[survey], encoders, settings)
        together = together_of(sky, {**_looking(seen), survey: less}, settings)
        looking = {name: probe for name, probe in whole[1].probes.items() if name != "blank"}
        return {} if together is None else _by_snr(together, replace(whole[1], probes=looking))

    def measure(snr: float) -> Callable[[Bands], Measured | None]:
        def of(bands: Bands) -> Measured | None:
            key = tuple((survey, *bands[survey]) for survey in surveys if survey in bands)
            if key not in known:
                known[key] = measured(bands)
            return known[key].get(snr)

        return of

    levels = np.unique(sky.column("snr")[np.asarray(sky.sources["kind"]) == BOTH])
    return [
        Figure(
            f"position median_mas S/N {snr:g}",
            surveys,
            measure(float(snr)),
            "scatter",
            whole=True,
            enough=UNDERPOWERED,
        )
        for snr in levels
    ]


def _fitted(
    sky: InjectedSky, seen: Mapping[str, Features], settings: EvaluateConfig
) -> tuple[Asked, Readouts] | None:
    """Sources as some surveys see them together, and readouts of their tokens."""
    together = together_of(sky, seen, settings)
    if together is None:
        return None
    fitted = fit_readouts({BOTH: together}, settings, (TOKENS,)).get((BOTH, TOKENS))
    return None if fitted is None else (together, fitted)


def _seen_with(
    sky: InjectedSky,
    survey: str,
    bands: list[str],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> Features:
    """What the encoders say of test sources when they are shown some bands; NaN of all others."""
    tokens, _ = reference_tokens(sky, settings.seed)
    is_test = np.asarray(sky.sources["split"]) == "test"
    asked = np.where(is_test[:, None], tokens, NOWHERE)
    looking = {name: encoders[name] for name in LOOKING}
    return features(sky, survey, looking, asked, settings.edge_tokens, bands, (TOKENS,))


def _looking(seen: Mapping[str, Features]) -> dict[str, Features]:
    return {
        survey: {name: {TOKENS: own[name][TOKENS]} for name in LOOKING}
        for survey, own in seen.items()
    }


def _by_snr(together: Asked, fitted: Readouts) -> BySnr:
    test = together.part(together.is_test & np.isin(together.snr, list(fitted.constant)))
    if not len(test.snr):
        return {}
    errors = fitted.errors(test)
    return {
        float(snr): Measured(
            test.names[test.snr == snr],
            errors["model"][test.snr == snr],
            {name: errors[name][test.snr == snr] for name in CONTROLS if name in errors},
        )
        for snr in np.unique(test.snr)
    }
