"""A small published store of the same blobs in three surveys of unequal cover."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaisp.config import Config, group_hash, parse_config
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.store.reader import Store, open_store
from jaisp.store.writer import GroupWriter, PatchPlanes

# `narrow` has one band and lacks the first patches.
SURVEYS = {"rubin": (["g", "r", "i"], 0.4), "euclid": (["VIS", "H"], 0.2), "narrow": (["r"], 0.8)}
PATCH = 12.8


def make_config(folder: Path, **train: Any) -> Config:
    content = {
        "run": "small",
        "sky": {
            "ra": 53.1,
            "dec": -28.1,
            "width_arcmin": 6 * PATCH / 60,
            "height_arcmin": 2 * PATCH / 60,
        },
        "patch": {"arcsec": PATCH},
        "split": {"test": 0.0, "validation": 0.34},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": {"kind": "simulated"}}
            for name, (bands, pixel) in SURVEYS.items()
        },
        "model": {"size": "tiny", "dimensions": 6},
        "train": {
            "steps": 6,
            "batch": 3,
            "crop_tokens": 6,
            "shift_tokens": 2,
            "record_every": 2,
            "validate_every": 4,
            "checkpoint_every": 3,
            **train,
        },
    }
    return parse_config(content, folder / "small.yaml")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The config of a published store in the working folder."""
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path)
    publish_blobs(config)
    return config


def publish_blobs(config: Config) -> None:
    """Write the store of a config from `make_config` into the working folder."""
    (cell,) = cells(config)
    rng = np.random.default_rng(7)
    low, high = cell.centres.min(axis=0) - 6, cell.centres.max(axis=0) + 6
    sources = rng.uniform(low, high, (200, 2))
    brightness = rng.uniform(30, 300, 200)
    for survey, (bands, _) in SURVEYS.items():
        _, grid = config.grid(survey)
        pixels = config.patch_pixels(survey)
        path = config.results / "patches.zarr" / cell.name / survey
        attributes = {"hash": group_hash(config, survey, cell)}
        with GroupWriter(path, bands, pixels, len(cell), grid, "int16", attributes) as group:
            for row, centre in enumerate(cell.centres):
                lacking = survey == "narrow" and row < 5
                planes = blobs(centre, sources, brightness, len(bands), pixels, grid, rng)
                group.write(row, None if lacking else planes)
            group.finish(np.ones((len(bands), 2), np.float32))
    publish(config)


@pytest.fixture
def store(config: Config) -> Store:
    return open_store(config.results / "patches.zarr")


def blobs(
    centre: np.ndarray,
    sources: np.ndarray,
    brightness: np.ndarray,
    bands: int,
    pixels: int,
    grid: float,
    rng: np.random.Generator,
) -> PatchPlanes:
    axis = (np.arange(pixels) - (pixels - 1) / 2) * grid
    dx = centre[0] + axis[None, None, :] - sources[:, 0, None, None]
    dy = centre[1] + axis[None, :, None] - sources[:, 1, None, None]
    light = (brightness[:, None, None] * np.exp(-(dx**2 + dy**2) / (2 * 0.5**2))).sum(axis=0)
    noise = np.full((bands, pixels, pixels), 5.0, np.float32)
    colours = np.linspace(0.5, 1.5, bands)[:, None, None]
    flux = (colours * light + rng.normal(0, 5, noise.shape)).astype(np.float32)
    mask = np.zeros(noise.shape, np.uint8)
    return PatchPlanes(flux, noise, mask, np.full(bands, 0.8, np.float32))
