"""One small simulated field, published, and its skies with known answers."""

import os

import pytest

from jaisp.config import Config
from jaisp.fetch import BATCHES, fetch
from jaisp.files import write_receipt
from jaisp.inject.stage import inject
from jaisp.plan import plan
from jaisp.simulate import simulate
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.warp import warp
from tests.simulate.fields import field_config

SIDE_ARCSEC = 76.8


def injected_config(**changes) -> Config:
    """Nine patches of 25.6″, the last three of them held out, under one tile a band."""
    side = SIDE_ARCSEC / 60
    content = {
        "run": "home",
        "sky": {"ra": 0.001, "dec": -28.1, "width_arcmin": side, "height_arcmin": side},
        "split": {"test": 0.33, "validation": 0.0, "seed": 1},
        "simulate": {"overlap_arcsec": 10.0, "tiles_per_side": 1},
    }
    return field_config(**(content | changes))


def run_to_store(config: Config) -> None:
    """Simulate, plan, fetch, warp and publish."""
    simulate(config)
    plan(config)
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    for cell in cells(config):
        for survey in config.surveys:
            warp(config, cell, survey)
    publish(config)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The field's folder and config; its cache lies beside it."""
    folder = tmp_path_factory.mktemp("home")
    config = injected_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JAISP_CACHE", str(folder / "cache"))
        run_to_store(config)
    return folder, config


@pytest.fixture
def here(home, monkeypatch):
    """Work in the field's folder; returns its config."""
    folder, config = home
    monkeypatch.chdir(folder)
    monkeypatch.setenv("JAISP_CACHE", str(folder / "cache"))
    return config


@pytest.fixture(scope="session")
def skies(home):
    """The field's injected skies, made when first asked for: name → open sky."""
    from jaisp.evaluate.injected import open_injected

    folder, config = home
    made = {}

    def sky(name):
        if name not in made:
            before = os.getcwd()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("JAISP_CACHE", str(folder / "cache"))
                inject(config, name)
                made[name] = open_injected(folder / "results" / "home" / "injected" / name)
            assert os.getcwd() == before
        return made[name]

    return sky
