"""Small groups and stores for these tests."""

from pathlib import Path

import numpy as np

from jaisp.config import Config, group_hash, parse_config
from jaisp.sky import cells
from jaisp.store.writer import GroupWriter, PatchPlanes

SURVEYS = {"rubin": (["g", "r"], 0.2), "euclid_q1": (["VIS", "J", "H"], 0.1)}


def realistic_planes(seed: int, bands: int, pixels: int, sigma: float = 20.0) -> PatchPlanes:
    """Noise that varies by 5 %, a few stars, a bad block."""
    rng = np.random.default_rng(seed)
    gradient = np.linspace(0.95, 1.05, pixels)
    noise = np.broadcast_to(sigma * gradient, (bands, pixels, pixels)).astype(np.float32)
    flux = (noise * rng.normal(size=noise.shape)).astype(np.float32)
    y, x = np.mgrid[:pixels, :pixels]
    for _ in range(max(1, pixels**2 // 3000)):
        cx, cy = rng.uniform(0, pixels, 2)
        height = sigma * 10 ** rng.uniform(0.5, 3)
        flux += (height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)).astype(np.float32)
    mask = np.zeros(noise.shape, np.uint8)
    noise = noise.copy()
    block = slice(2, 2 + pixels // 8)
    flux[:, block, block], noise[:, block, block], mask[:, block, block] = np.nan, 0.0, 1
    return PatchPlanes(flux, noise, mask, np.full(bands, 0.7, np.float32))


def write_group(path: Path, rows: list, bands: list[str], pixels: int, **options) -> None:
    """Write a group of these rows (PatchPlanes or None)."""
    with GroupWriter(path, bands, pixels, len(rows), 0.2, **options) as group:
        for row, planes in enumerate(rows):
            group.write(row, planes)
        group.finish(np.ones((len(bands), 2), np.float32), {"tiles": ["b", "a"]})


def small_config(**changes) -> Config:
    """Two surveys on four by four patches of 6.4 arcsec."""
    archive = {"kind": "simulated"}
    content = {
        "run": "small",
        "sky": {"ra": 53.1, "dec": -28.1, "width_arcmin": 0.43, "height_arcmin": 0.43},
        "patch": {"arcsec": 6.4},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": archive}
            for name, (bands, pixel) in SURVEYS.items()
        },
        **changes,
    }
    return parse_config(content, Path("small.yaml"))


def fill_store(config: Config, covered: dict | None = None) -> Path:
    """Write every group of the config; covered: rows that each survey covers, default all."""
    store = config.results / "patches.zarr"
    for cell in cells(config):
        for seed, (name, survey) in enumerate(config.surveys.items()):
            pixels = config.patch_pixels(name)
            rows = range(len(cell)) if covered is None else covered[name]
            planes = [
                realistic_planes(100 * seed + row, len(survey.bands), pixels)
                if row in rows
                else None
                for row in range(len(cell))
            ]
            attributes = {"hash": group_hash(config, name, cell)}
            write_group(
                store / cell.name / name,
                planes,
                survey.bands,
                pixels,
                flux_dtype=config.store.flux,
                attributes=attributes,
            )
    return store
