"""What each survey, and each band, is worth to the position of sources that all surveys see."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
from jaxtyping import Bool

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.injected import TOKENS, Features, InjectedSky, reference_tokens
from jaisp.evaluate.position import (
    BOTH,
    UNDERPOWERED,
    Asked,
    Fitted,
    Readouts,
    fit_readouts,
    together_of,
)
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.withheld import Bands, Figure, Measured, Missing, missing_of
from jaisp.evaluate.withheld_bands import LOOKING, Without, few_of, tokens_without

CONTROLS = ("random", "shuffled", "constant")

BySnr = dict[float, Measured]


def position_figures(
    sky: InjectedSky,
    seen: Mapping[str, Features],
    encoders: Mapping[str, Encoder],
    fitted: Fitted,
    settings: EvaluateConfig,
) -> list[Figure]:
    """Error of the position read off the tokens of all surveys, a figure a S/N, in mas.

    seen: from `position.seen_of` that sky; fitted: from `position.fit_readouts`. Without a survey,
    readouts are fitted anew on the tokens that are left; without a band, those that were fitted
    with everything are read unchanged, on a few test patches.
    """
    surveys = tuple(sorted(seen))
    everything = {survey: sky.store.bands(survey) for survey in surveys}
    whole, few = None, few_of(sky, settings.withheld_patches)
    together, readouts = together_of(sky, seen, settings), fitted.get((BOTH, TOKENS))
    if together is not None and readouts is not None:
        whole = together, readouts

    @cache
    def without(survey: str) -> Without:
        return _seen_without(sky, survey, few, encoders, settings)

    @cache
    def measured(missing: Missing | None) -> BySnr:
        if missing is None or missing.band is None:
            left = {s: own for s, own in seen.items() if missing is None or s != missing.survey}
            known = whole if missing is None else _fitted(sky, left, settings)
            return {} if known is None else _by_snr(*known)
        if whole is None:
            return {}
        less = _spread(without(missing.survey)[missing.band], few)
        together = together_of(sky, {**_looking(seen), missing.survey: less}, settings)
        looking = {name: probe for name, probe in whole[1].probes.items() if name != "blank"}
        return {} if together is None else _by_snr(together, replace(whole[1], probes=looking))

    def measure(snr: float) -> Callable[[Bands], Measured | None]:
        return lambda bands: measured(missing_of(bands, everything)).get(snr)

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


def _seen_without(
    sky: InjectedSky,
    survey: str,
    few: Bool[np.ndarray, " source"],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> Without:
    """What the encoders say of a few test sources when they are not shown each of the bands."""
    tokens, _ = reference_tokens(sky, settings.seed)
    return tokens_without(sky.part(few), survey, encoders, tokens[few], settings.edge)


def _spread(own: Mapping[str, np.ndarray], few: Bool[np.ndarray, " source"]) -> Features:
    """The same as features of all sources; NaN of those that were not asked about."""
    found: Features = {}
    for name, values in own.items():
        everyone = np.full((len(few), values.shape[1]), np.nan, np.float32)
        everyone[few] = values
        found[name] = {TOKENS: everyone}
    return found


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
