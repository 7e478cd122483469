"""Readouts of one field on another: what is as good there keeps its distance to the bound."""

import numpy as np
import pytest
from astropy.table import Table

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate import position as module
from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.transfer import photometry_transfer, transfer
from tests.evaluate.skies import TOKEN, Constant, Noise

SETTINGS = EvaluateConfig(resamples=100, edge_tokens=2)
A_LEVEL = 400
ENCODERS = {"model": Constant(), "random": Noise(), "blank": Constant()}


def injected(name, store, bounds, seed) -> InjectedSky:
    """Sources at random places of the field, whatever is there: their tokens are planted."""
    rng = np.random.default_rng(seed)
    half = store.patch_arcsec / 2 - 2 * TOKEN
    rows = []
    for level, bound in bounds.items():
        for number in range(A_LEVEL):
            row = int(rng.integers(len(store)))
            x, y = (
                float(c[row]) + rng.uniform(-half, half) for c in (store.index.x, store.index.y)
            )
            own = {"cell": "field", "row": row, "x": x, "y": y, "snr": level, "kind": "each"}
            own["split"] = ("train", "test")[number % 2]
            for survey in ("sharp", "wide"):
                own |= {f"x_{survey}": x, f"y_{survey}": y, f"bound_mas_{survey}": bound}
                for classical in ("centroid", "psf_fit"):
                    for axis in "xy":
                        own[f"{classical}_d{axis}_mas_{survey}"] = rng.normal(0, bound)
            rows.append(own)
    return InjectedSky(name, store, Table(rows=rows))


@pytest.fixture(scope="module")
def skies(sky):
    home = injected("empty", sky, {10.0: 30.0, 100.0: 3.0}, seed=5)
    return home, injected("second_empty", sky, {10.0: 60.0, 100.0: 6.0}, seed=6)


def plant(monkeypatch, away_factor=1.0, knows=True):
    """Features that are a random projection of offsets that err by the field's own bound, on the
    second field by `away_factor` times it."""

    def planted(sky, survey, encoders, tokens, edge_tokens):
        rng = np.random.default_rng(list(f"{sky.name}{survey}".encode()))
        half = sky.store.patch_arcsec / 2
        corner = np.array([sky.store.index.y.min() - half, sky.store.index.x.min() - half])
        offset = np.stack([sky.column("y"), sky.column("x")], axis=1) - corner
        offset -= (tokens + 0.5) * TOKEN
        factor = away_factor if sky.name == "second_empty" else 1.0
        error = factor * sky.column(f"bound_mas_{survey}") / 1000
        offset += rng.normal(size=offset.shape) * error[:, None]
        seen = offset @ np.random.default_rng(3).normal(size=(2, 27))
        nothing = rng.normal(size=seen.shape)
        own = {"model": seen if knows else nothing, "random": nothing, "blank": 0 * nothing}
        return {name: {"tokens": own[name].astype(np.float32)} for name in encoders}

    monkeypatch.setattr(module, "features", planted)


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_the_distance_to_the_bound_is_what_counts(skies, monkeypatch, factor):
    plant(monkeypatch, away_factor=factor)
    rows = transfer(*skies, ENCODERS, SETTINGS)
    assert {(row["survey"], row["snr"]) for row in rows} == {
        (survey, snr) for survey in ("sharp", "wide") for snr in (10.0, 100.0)
    }
    for row in rows:
        assert (row["figure"], row["field"], row["home"]) == ("position", "second_empty", "empty")
        assert row["n"] == A_LEVEL
        assert row["home_n"] == A_LEVEL // 2
        assert row["home_over_bound"] == pytest.approx(1, rel=0.15)
        assert row["over_bound"] == pytest.approx(factor, rel=0.15)
        assert row["ratio"] == pytest.approx(factor, rel=0.2)
        assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
        assert row["psf_fit_over_bound"] == pytest.approx(1, rel=0.15)
        assert row["random_over_bound"] > 0.9 * row["constant_over_bound"]
        assert row["claim"]
        assert row["underpowered"]


def test_who_knows_nothing_is_at_chance_there_too(skies, monkeypatch):
    plant(monkeypatch, knows=False)
    for row in transfer(*skies, ENCODERS, SETTINGS):
        assert row["median_mas"] > 0.9 * row["constant_mas"]


def test_photometry_is_set_against_its_apertures():
    keys = ("survey", "target")
    own = {"survey": "a", "target": "b:r", "n": 10, "r2": 0.9}
    home = [own | {"scatter": 0.1, "aperture_scatter": 0.05}]
    away = [own | {"scatter": 0.3, "aperture_scatter": 0.1}]
    other = own | {"target": "b:i", "scatter": 0.3, "aperture_scatter": 0.1}
    (row,) = photometry_transfer(home, [*away, other], keys)
    assert row["figure"] == "photometry"
    assert row["home_over_aperture"] == pytest.approx(2)
    assert row["over_aperture"] == pytest.approx(3)
    assert row["ratio"] == pytest.approx(1.5)
