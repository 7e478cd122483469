"""The made-up sky once more, each of its patches displaced and turned by a known amount."""

import numpy as np
from astropy.table import Table

from jaisp.config import Config, group_hash
from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.motion import Motion
from jaisp.sky import cells, splits
from jaisp.store.publish import publish
from jaisp.store.reader import open_store
from jaisp.store.writer import GroupWriter, PatchPlanes
from tests.evaluate.skies import FWHM, NOISE, SURVEYS, draw_sources, render

SHIFTS = (0.0, 50.0, 100.0, 200.0, 500.0)
SPLIT_NAMES = ("none", "train", "validation", "test")


def publish_displaced(
    config: Config, shift=(0.0, 0.0), per_arcmin2: float = 60, seed: int = 1
) -> InjectedSky:
    """The sky that `publish_sky` draws with the same arguments, displaced; other noise."""
    (cell,) = cells(config)
    sources = draw_sources(cell, per_arcmin2, seed)
    rng = np.random.default_rng(seed + 100)
    count = len(cell)
    split = [SPLIT_NAMES[number] for number in splits(config, [cell])[cell.name]]
    columns = {"cell": [cell.name] * count, "row": np.arange(count), "split": split}
    for name in SURVEYS:
        bands, pixels = config.surveys[name].bands, config.patch_pixels(name)
        _, grid = config.grid(name)
        size = rng.permutation(np.resize(SHIFTS, count))
        angle = rng.uniform(0, 2 * np.pi, count)
        turn = rng.uniform(-0.1, 0.1, count)
        columns[f"dx_mas_{name}"] = size * np.cos(angle)
        columns[f"dy_mas_{name}"] = size * np.sin(angle)
        columns[f"angle_deg_{name}"] = turn
        shifts = np.stack([columns[f"d{axis}_mas_{name}"] for axis in "xy"], axis=1)
        motion = Motion(shifts, 1000 * np.radians(turn))
        path = config.results / "patches.zarr" / cell.name / name
        attributes = {"hash": group_hash(config, name, cell)}
        with GroupWriter(path, bands, pixels, count, grid, attributes=attributes) as group:
            for row in range(count):
                place = sources[:, :2] - cell.centres[row]
                moved = place + motion.at(np.full(len(place), row), place) / 1000
                moved = moved + (np.array(shift) if name == "wide" else 0)
                clean = render(moved, sources[:, 2], pixels, grid)
                noise = np.full((len(bands), pixels, pixels), NOISE * grid, np.float32)
                flux = clean + noise * rng.normal(size=noise.shape)
                seeing = np.full(len(bands), FWHM, np.float32)
                mask = np.zeros(noise.shape, np.uint8)
                group.write(row, PatchPlanes(flux.astype(np.float32), noise, mask, seeing))
            group.finish(np.ones((len(bands), 2), np.float32), {})
    publish(config)
    return InjectedSky("displaced", open_store(config.results / "patches.zarr"), Table(columns))
