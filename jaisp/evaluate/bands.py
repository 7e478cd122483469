"""Retrieval between single bands: every band for itself takes the place of a survey."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.means import mean_tokens
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.retrieval import contests
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.sources import Catalogue
from jaisp.evaluate.views import encode_sky
from jaisp.sampling import evenly
from jaisp.store.reader import Store

MEAN_PATCHES = 4


def band_retrieval(
    store: Store,
    test: Int[np.ndarray, " patch"],
    train: Int[np.ndarray, " other"],
    catalogues: Sequence[Catalogue],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
    outcomes: Outcomes | None = None,
) -> list[dict[str, Any]]:
    """Rows of the group `retrieval` for every ordered pair of bands, as `survey:band`.

    test, train: numbers of the patches that are searched, of which `band_patches` are taken evenly,
    and of those that tell the mean tokens; catalogues: of the test patches. A source counts above
    `snr_min` in both bands.
    """
    shown = {
        f"{survey}:{band}": (survey, [band])
        for survey in store.surveys
        for band in store.bands(survey)
    }
    drawn = evenly(len(test), settings.band_patches)
    seeing = {name: encoders[name] for name in ("model", "random")}
    means = mean_tokens(store, train[evenly(len(train), MEAN_PATCHES)], seeing, settings, shown)
    by_band = [_by_band(catalogues[i], store) for i in drawn]
    sky = encode_sky(store, test[drawn], by_band, encoders, settings, shown)
    rows = []
    for contest in contests(sky, means, settings):
        rows += contest.rows()
        if outcomes is not None:
            contest.keep(outcomes, ("top1",))
    return rows


def _by_band(catalogue: Catalogue, store: Store) -> Catalogue:
    """The same sources, with each band's S/N under the name of the band."""
    snr = {
        f"{survey}:{band}": values[:, number]
        for survey, values in catalogue.band_snr.items()
        for number, band in enumerate(store.bands(survey))
    }
    return replace(catalogue, snr=snr)
