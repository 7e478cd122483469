"""A made-up sky with a truth table, and what encoders of known quality say of its sources."""

from dataclasses import replace

import numpy as np
from astropy.table import Table

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.known import KnownSky
from jaisp.evaluate.seen import Seen
from jaisp.sky import cells, plane_radec
from jaisp.store.reader import Store
from tests.evaluate.skies import SURVEYS, draw_sources, sky_config

SETTINGS = EvaluateConfig(resamples=200, edge_tokens=2)
PER_ARCMIN2 = 60
# Of a sky of NOISE 1 the faintest source has S/N 110.
FAINT = 30.0


def truth_table(store: Store, seed: int = 1) -> Table:
    """The sources that `publish_sky` drew; sizes, shapes and redshifts that no image shows."""
    (cell,) = cells(sky_config())
    sources = draw_sources(cell, PER_ARCMIN2, seed)
    rng = np.random.default_rng(7)
    ra, dec = plane_radec(store.cell("field"), *sources[:, :2].T)
    table = Table({"id": np.arange(len(sources)), "ra": ra, "dec": dec})
    table["type"] = np.where(rng.uniform(size=len(sources)) < 0.1, "star", "spiral")
    table["redshift"] = rng.gamma(3, 0.3, len(sources))
    table["half_light_radius_arcsec"] = 10 ** rng.uniform(-2.5, -1.5, len(sources))
    table["e1"], table["e2"] = rng.normal(0, 0.2, (2, len(sources)))
    for survey, (bands, _) in SURVEYS.items():
        for band in bands:
            table[f"flux_{survey}_{band}"] = sources[:, 2]
    return table


def vary_colours(known: KnownSky) -> KnownSky:
    """The same sources with colours of their own, which no image shows."""
    rng, table = np.random.default_rng(8), known.sky.sources.copy()
    for survey, band in known.bands:
        factor = 10 ** rng.normal(0, 0.1, len(table))
        for column in (f"flux_{survey}_{band}", f"snr_{survey}_{band}"):
            table[column] *= factor
    return replace(known, sky=replace(known.sky, sources=table))


def planted(known: KnownSky, knows: np.ndarray, error: float = 0.03) -> Seen:
    """A model whose tokens are a random projection of standardised numbers; the controls' tokens
    are noise."""
    rng = np.random.default_rng(9)
    scaled = (knows - np.nanmean(knows, axis=0)) / np.nanstd(knows, axis=0)
    scaled = np.nan_to_num(scaled) + error * rng.normal(size=knows.shape)
    model = scaled @ rng.normal(size=(knows.shape[1], 64))
    components = {
        survey: {
            "model": model.astype(np.float32),
            "random": rng.normal(size=model.shape).astype(np.float32),
            "blank": rng.normal(size=model.shape).astype(np.float32),
        }
        for survey in SURVEYS
    }
    return Seen({survey: (survey, bands) for survey, (bands, _) in SURVEYS.items()}, components)
