"""What each band of a displaced survey is worth to where the survey is found to lie."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.displaced import scene_of, tokens_around
from jaisp.evaluate.registration import Registered
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.sighting import Sighting
from jaisp.evaluate.withheld import Bands, Figure, Measured, missing_of
from jaisp.evaluate.withheld_bands import LOOKING, Without, on_few_patches, without_each
from jaisp.store.reader import Store

READ = ("model", "random", "shuffled")


def registration_figure(
    found: Registered,
    displaced: Store,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> Figure:
    """Error of shifts of all sizes, mas, on a few test patches; a value is a patch's.

    The readouts stay as they were fitted, with everything shown. `constant` is no answer's error.
    """
    patches, survey = found.patches, found.pair.survey
    truth = patches.motion[survey].shift
    seen = np.isin(np.arange(len(patches)), found.pair.patch)
    few = on_few_patches(np.arange(len(patches)), patches.is_test & seen, settings.withheld_patches)
    names = np.array([displaced[int(number)].name for number in patches.away[few]], dtype=str)
    pair = found.pair.part(few[found.pair.patch])
    without = _tokens_without(found, pair, displaced, encoders)
    everything = {survey: displaced.bands(survey)}

    def measure(bands: Bands) -> Measured | None:
        missing = missing_of(bands, everything)
        shown = pair if missing is None else replace(pair, away=without[str(missing.band)])
        off = {
            name: (found.readers[name].motion(shown, len(patches)).shift - truth)[few]
            for name in READ
            if name in found.readers
        }
        return Measured(names, off.pop("model"), {**off, "constant": -truth[few]})

    return Figure(
        f"registration error_mas {survey}>{found.pair.target}", (survey,), measure, "scatter"
    )


def _tokens_without(
    found: Registered, pair: Sighting, displaced: Store, encoders: Mapping[str, Encoder]
) -> Without:
    """The displaced survey's tokens of some looks, less their mean with everything shown."""
    without = {
        band: {name: np.empty_like(pair.away[name]) for name in LOOKING}
        for band in displaced.bands(pair.survey)
    }
    for patch in np.unique(pair.patch):
        own = pair.patch == patch
        view = displaced[int(found.patches.away[patch])][pair.survey]
        scene = scene_of(view)
        for band, name, encoder in without_each(encoders, view.bands):
            tokens = tokens_around(encoder, scene, pair.token[own])
            without[band][name][own] = tokens - found.mean[name]
    return without
