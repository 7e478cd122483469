"""Retrieval between single bands: every band for itself takes the place of a survey."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.retrieval import Means, retrieval
from jaisp.evaluate.sources import Catalogue
from jaisp.evaluate.views import Encoder, encode_sky, mean_tokens
from jaisp.store.reader import Store

SEEING = ("model", "random")


def band_retrieval(
    store: Store,
    test: np.ndarray,
    train: np.ndarray,
    catalogues: Sequence[Catalogue],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Rows of the group `retrieval` for every ordered pair of bands, as `survey:band`.

    test, train: numbers of the patches that are searched, and of those that tell the mean token
    of each band; catalogues: of the test patches. A source counts above `snr_min` in both bands.
    """
    shown = {
        f"{survey}:{band}": (survey, [band])
        for survey in store.surveys
        for band in store.bands(survey)
    }
    crops = settings.crop_tokens, settings.edge_tokens, settings.seed
    seeing = {name: encoders[name] for name in SEEING}
    nothing = [Catalogue(np.zeros((0, 2)), {}, {}, {})] * len(train)
    learnt = encode_sky(store, train, nothing, seeing, *crops, shown)
    means: Means = {
        name: {**own, "blank": own["model"]} for name, own in mean_tokens(learnt).items()
    }
    by_band = [_by_band(catalogue, store) for catalogue in catalogues]
    sky = encode_sky(store, test, by_band, encoders, *crops, shown)
    return retrieval(sky, means, settings)[0]


def _by_band(catalogue: Catalogue, store: Store) -> Catalogue:
    """The same sources, with each band's S/N under the name of the band."""
    snr = {
        f"{survey}:{band}": values[:, number]
        for survey, values in catalogue.band_snr.items()
        for number, band in enumerate(store.bands(survey))
    }
    return replace(catalogue, snr=snr)
