"""What each survey, and each band, is worth to telling one source from two."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.deblending import Blends, Scorers, blends_of
from jaisp.evaluate.injected import TOKENS, Features, InjectedSky, nearest_tokens
from jaisp.evaluate.position import BOTH, UNDERPOWERED, names_of
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.withheld import Bands, Figure, Measured, Missing, missing_of
from jaisp.evaluate.withheld_bands import LOOKING, few_of, tokens_without

CONTROLS = ("random", "shuffled")


def deblending_figure(
    pairs: InjectedSky,
    seen: Mapping[str, Features],
    fitted: Mapping[str, Scorers],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> Figure:
    """AUC of one source against two, of all separations and S/N, from the tokens of all surveys.

    seen: from `deblending.pairs_seen`; fitted: from `fit_scorers`. Without a survey, the other's
    own probe is read; without a band, that of all surveys is read unchanged, on the sources of a
    few test patches.
    """
    surveys = tuple(sorted(pairs.store.surveys))
    whole = BOTH if len(surveys) > 1 else surveys[0]
    everything = {survey: pairs.store.bands(survey) for survey in surveys}
    less = _seen_without(pairs, seen, encoders, settings)
    every = blends_of(pairs, seen)

    @cache
    def measured(missing: Missing | None) -> Measured | None:
        view, blends = whole, every[whole]
        if missing is not None and missing.band is None:
            left = [survey for survey in surveys if survey != missing.survey]
            if len(left) > 1:  # several are read together only where all are
                return None
            (view,) = left
            blends = every[view]
        elif missing is not None:
            blends = less[missing]
        return None if view not in fitted else _measured(blends, fitted[view], settings)

    def measure(bands: Bands) -> Measured | None:
        return measured(missing_of(bands, everything))

    return Figure("deblending auc", surveys, measure, "auc", whole=True, enough=UNDERPOWERED)


def _measured(blends: Blends, scorers: Scorers, settings: EvaluateConfig) -> Measured | None:
    test = blends.part(blends.is_test)
    if not test.is_pair.any() or test.is_pair.all():
        return None
    scores = scorers.scores(test, settings.seed)
    values = {
        name: np.stack([scores[name], test.is_pair], axis=1)
        for name in ("model", *CONTROLS)
        if name in scores
    }
    return Measured(test.names, values.pop("model"), values)


def _seen_without(
    pairs: InjectedSky,
    seen: Mapping[str, Features],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> dict[Missing, Blends]:
    """A few test sources as all surveys see them, without each of the bands."""
    few = few_of(pairs, settings.withheld_patches)
    sky, tokens, names = pairs.part(few), nearest_tokens(pairs)[few], names_of(pairs)[few]
    complete = {
        survey: {name: {TOKENS: own[name][TOKENS][few]} for name in LOOKING}
        for survey, own in seen.items()
    }
    found = {}
    for survey in seen:
        blind = tokens_without(sky, survey, encoders, tokens, settings.edge)
        for band, raw in blind.items():
            own = {name: {TOKENS: values} for name, values in raw.items()}
            together = blends_of(sky, {**complete, survey: own}, names)
            found[Missing(survey, band)] = list(together.values())[-1]
    return found
