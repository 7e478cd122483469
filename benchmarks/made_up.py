"""A made-up store: noise, and sources of power-law brightness in all bands."""

from pathlib import Path

import numpy as np

from jaisp.config import Config, group_hash
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.store.writer import GroupWriter, PatchPlanes

SIGMA, SOURCES = 20.0, 60


def make_store(config: Config) -> Path:
    """Publish a store of the config's field; returns where it stands."""
    path = config.results / "patches.zarr"
    rng = np.random.default_rng(0)
    for name, survey in config.surveys.items():
        (_, grid), pixels = config.grid(name), config.patch_pixels(name)
        for cell in cells(config):
            attributes = {"hash": group_hash(config, name, cell)}
            group_path = path / cell.name / name
            with GroupWriter(
                group_path, survey.bands, pixels, len(cell), grid, attributes=attributes
            ) as group:
                for row in range(len(cell)):
                    group.write(row, planes(rng, len(survey.bands), pixels))
                group.finish(np.ones((len(survey.bands), 2), np.float32))
    publish(config)
    return path


def planes(rng: np.random.Generator, bands: int, pixels: int) -> PatchPlanes:
    """Noise, and sources of power-law brightness in all bands."""
    shape = (bands, pixels, pixels)
    gradient = np.linspace(0.97, 1.03, pixels, dtype=np.float32)
    noise = np.broadcast_to(np.float32(SIGMA) * gradient, shape).copy()
    flux = noise * rng.standard_normal(shape, dtype=np.float32)
    v, u = np.mgrid[-10:11, -10:11]
    for _ in range(SOURCES):
        y, x = rng.integers(10, pixels - 10, size=2)
        height = SIGMA * rng.pareto(0.7) * rng.uniform(0.5, 2, size=(bands, 1, 1))
        width = rng.uniform(1.5, 3)
        flux[:, y - 10 : y + 11, x - 10 : x + 11] += height * np.exp(
            -(u**2 + v**2) / (2 * width**2)
        )
    mask = np.zeros(shape, np.uint8)
    return PatchPlanes(flux, noise, mask, np.full(bands, 0.7, np.float32))
