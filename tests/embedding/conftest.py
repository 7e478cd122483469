"""A small published store of two surveys, and an untrained model to go over it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jaisp.config import Config, group_hash, parse_config
from jaisp.model import Architecture, Model, SurveyPixels
from jaisp.sky import Cell, cells
from jaisp.store.publish import publish
from jaisp.store.writer import GroupWriter, PatchPlanes

SURVEYS = {"rubin": (["g", "r", "i"], 0.4), "euclid": (["VIS", "H"], 0.2)}
PATCH = 12.8


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    size = 4 * PATCH / 60
    content = {
        "run": "small",
        "sky": {"ra": 53.1, "dec": -28.1, "width_arcmin": size, "height_arcmin": 0.75 * size},
        "patch": {"arcsec": PATCH},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": {"kind": "simulated"}}
            for name, (bands, pixel) in SURVEYS.items()
        },
    }
    return parse_config(content, tmp_path / "small.yaml")


def fill_cell(config: Config, cell: Cell, survey: str, bands: list[str]) -> None:
    """Write a group of noise and one bright blob a patch."""
    generator = np.random.default_rng(len(cell))
    _, grid = config.grid(survey)
    pixels = config.patch_pixels(survey)
    path = config.results / "patches.zarr" / cell.name / survey
    attributes = {"hash": group_hash(config, survey, cell)}
    with GroupWriter(path, bands, pixels, len(cell), grid, "int16", attributes) as group:
        for row, centre in enumerate(cell.centres):
            planes = _patch(
                centre, centre[None], np.array([200.0]), len(bands), pixels, grid, generator
            )
            group.write(row, planes)
        group.finish(np.ones((len(bands), 2), np.float32))


@pytest.fixture
def published(config: Config) -> Config:
    """The same sky of blobs in both surveys; Euclid lacks the last patch."""
    (cell,) = cells(config)
    generator = np.random.default_rng(7)
    low, high = cell.centres.min(axis=0) - 6, cell.centres.max(axis=0) + 6
    sources = generator.uniform(low, high, (40, 2))
    brightness = generator.uniform(30, 300, 40)
    for survey, (bands, _) in SURVEYS.items():
        _, grid = config.grid(survey)
        pixels = config.patch_pixels(survey)
        path = config.results / "patches.zarr" / cell.name / survey
        attributes = {"hash": group_hash(config, survey, cell)}
        with GroupWriter(path, bands, pixels, len(cell), grid, "int16", attributes) as group:
            for row, centre in enumerate(cell.centres):
                lacking = survey == "euclid" and row == len(cell) - 1
                planes = _patch(centre, sources, brightness, len(bands), pixels, grid, generator)
                group.write(row, None if lacking else planes)
            group.finish(np.ones((len(bands), 2), np.float32))
    publish(config)
    return config


def _patch(
    centre: np.ndarray,
    sources: np.ndarray,
    brightness: np.ndarray,
    bands: int,
    pixels: int,
    grid: float,
    generator: np.random.Generator,
) -> PatchPlanes:
    axis = (np.arange(pixels) - (pixels - 1) / 2) * grid
    dx = centre[0] + axis[None, None, :] - sources[:, 0, None, None]
    dy = centre[1] + axis[None, :, None] - sources[:, 1, None, None]
    light = (brightness[:, None, None] * np.exp(-(dx**2 + dy**2) / (2 * 0.5**2))).sum(axis=0)
    colours = np.linspace(0.5, 1.5, bands)[:, None, None]
    noise = np.full((bands, pixels, pixels), 5.0, np.float32)
    flux = (colours * light + generator.normal(0, 5, noise.shape)).astype(np.float32)
    mask = np.zeros(noise.shape, np.uint8)
    return PatchPlanes(flux, noise, mask, np.full(bands, 0.8, np.float32))


@pytest.fixture
def model(config: Config) -> Model:
    """Fresh weights: what the model would say is no matter here."""
    surveys = {
        name: SurveyPixels(
            bands=survey.bands,
            grid_arcsec=config.grid(name)[1],
            pixels_per_token=config.grid(name)[0],
        )
        for name, survey in config.surveys.items()
    }
    torch.manual_seed(3)
    architecture = Architecture(
        surveys=surveys, token_arcsec=config.model.token_arcsec, dimensions=6, size="tiny"
    )
    return Model(architecture).eval()
