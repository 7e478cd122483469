"""A made-up sky in two surveys, published as a store, and encoders whose quality is known."""

from pathlib import Path

import numpy as np

from jaisp.config import Config, group_hash, parse_config
from jaisp.evaluate.controls import coarse_snr
from jaisp.sky import Cell, cells
from jaisp.store.publish import publish
from jaisp.store.reader import Store, open_store
from jaisp.store.writer import GroupWriter, PatchPlanes

SURVEYS = {"sharp": (["r"], 0.2), "wide": (["g", "i"], 0.4)}
FWHM = 1.2
NOISE = 1.0
TOKEN = 1.6


def sky_config(side_arcsec: float = 230.4, test: float = 0.5, **changes) -> Config:
    """Patches of 38.4″, 24 tokens a side, in two surveys."""
    archive = {"kind": "simulated"}
    content = {
        "run": "sky",
        "sky": {
            "ra": 53.1,
            "dec": -28.1,
            "width_arcmin": side_arcsec / 60,
            "height_arcmin": side_arcsec / 60,
        },
        "patch": {"arcsec": 38.4},
        "split": {"test": test, "validation": 0.0},
        "model": {"token_arcsec": TOKEN},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": archive}
            for name, (bands, pixel) in SURVEYS.items()
        },
        **changes,
    }
    return parse_config(content, Path("sky.yaml"))


def publish_sky(config: Config, shift=(0.0, 0.0), per_arcmin2: float = 60, seed: int = 1) -> Store:
    """Write and publish the sky; `shift`: arcsec (west, north) by which `wide` is displaced."""
    (cell,) = cells(config)
    sources = draw_sources(cell, per_arcmin2, seed)
    rng = np.random.default_rng(seed + 1)
    for name in config.surveys:
        bands, pixels = config.surveys[name].bands, config.patch_pixels(name)
        _, grid = config.grid(name)
        moved = sources[:, :2] + (np.array(shift) if name == "wide" else 0)
        path = config.results / "patches.zarr" / cell.name / name
        attributes = {"hash": group_hash(config, name, cell)}
        with GroupWriter(path, bands, pixels, len(cell), grid, attributes=attributes) as group:
            for row in range(len(cell)):
                clean = render(moved - cell.centres[row], sources[:, 2], pixels, grid)
                noise = np.full((len(bands), pixels, pixels), NOISE * grid, np.float32)
                flux = clean + noise * rng.normal(size=noise.shape)
                group.write(
                    row,
                    PatchPlanes(
                        flux.astype(np.float32),
                        noise,
                        np.zeros(noise.shape, np.uint8),
                        np.full(len(bands), FWHM, np.float32),
                    ),
                )
            group.finish(np.ones((len(bands), 2), np.float32), {})
    publish(config)
    return open_store(config.results / "patches.zarr")


def draw_sources(cell: Cell, per_arcmin2: float, seed: int) -> np.ndarray:
    """x, y (arcsec on the plane) and flux (nJy) of point sources, S/N from about 100 up."""
    rng = np.random.default_rng(seed)
    low, high = cell.centres.min(axis=0) - 25, cell.centres.max(axis=0) + 25
    count = int(np.prod(high - low) / 3600 * per_arcmin2)
    return np.column_stack([rng.uniform(low, high, (count, 2)), 10 ** rng.uniform(2.3, 4, count)])


def render(xy: np.ndarray, flux: np.ndarray, pixels: int, grid: float) -> np.ndarray:
    """Gaussian point sources at xy (arcsec from the patch's centre), nJy a pixel."""
    sigma = FWHM / 2.3548
    axis = (np.arange(pixels) + 0.5 - pixels / 2) * grid
    near = (np.abs(xy) < pixels * grid / 2 + 6).all(axis=1)
    x, y = (np.exp(-((axis - c[:, None]) ** 2) / 2 / sigma**2) for c in xy[near].T)
    return np.einsum("s,sy,sx->yx", flux[near], y, x) * grid**2 / (2 * np.pi * sigma**2)


class Oracle:
    """Tokens that are a random projection of what the sky shows around them."""

    def __init__(self, shifted: str = "") -> None:
        self._matrix = np.random.default_rng(7).normal(size=(48, 400)) / 20
        self._shifted = shifted

    def encode(self, flux, noise, mask=None, *, survey, bands):
        tall, wide = grid_of(flux, survey)
        snr = coarse_snr(flux, noise, np.isfinite(flux), wide * 4).sum(axis=1)
        # In the units of the survey's own noise a source has one S/N everywhere.
        image = np.pad(np.arcsinh(snr / np.sqrt(len(bands)) / 5), ((0, 0), (8, 8), (8, 8)))
        stamps = np.lib.stride_tricks.sliding_window_view(image, (20, 20), axis=(1, 2))
        stamps = stamps[:, ::4, ::4].reshape(len(flux), tall, wide, 400)
        if survey == self._shifted:
            stamps = np.roll(stamps, 1, axis=2)
        return np.einsum("dk,bijk->bdij", self._matrix, stamps).astype(np.float32)


class OneBand(Oracle):
    """An oracle that looks at `wide` in one band alone, and without it sees nothing."""

    def __init__(self, band: str) -> None:
        super().__init__()
        self._band = band

    def encode(self, flux, noise, mask=None, *, survey, bands):
        if survey == "wide" and self._band not in bands:
            return Constant().encode(flux, noise, survey=survey, bands=bands)
        chosen = [bands.index(self._band)] if survey == "wide" else [0]
        return super().encode(flux[:, chosen], noise[:, chosen], survey=survey, bands=["one"])


class Constant:
    """The same token everywhere."""

    def encode(self, flux, noise, mask=None, *, survey, bands):
        tall, wide = grid_of(flux, survey)
        token = np.random.default_rng(3).normal(size=48).astype(np.float32)
        return np.broadcast_to(token[None, :, None, None], (len(flux), 48, tall, wide))


class Position:
    """A token for each place in the crop, whatever the sky."""

    def encode(self, flux, noise, mask=None, *, survey, bands):
        tall, wide = grid_of(flux, survey)
        code = np.random.default_rng(4).normal(size=(32, tall, wide)).astype(np.float32)
        return np.broadcast_to(code, (len(flux), *code.shape))


class SmoothPosition:
    """Where a token lies in the crop, in waves of many lengths: neighbours have like tokens."""

    def encode(self, flux, noise, mask=None, *, survey, bands):
        tall, wide = grid_of(flux, survey)
        phase = np.arange(max(tall, wide))[:, None] * 2 * np.pi / np.array([160, 80, 40, 20, 10])
        waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
        shape = tall, wide, waves.shape[1]
        along = (waves[:tall, None], waves[:wide])
        code = np.concatenate([np.broadcast_to(own, shape) for own in along], axis=2)
        code = code.transpose(2, 0, 1)
        return np.broadcast_to(code.astype(np.float32), (len(flux), *code.shape))


class Noise:
    """Tokens that know nothing."""

    def __init__(self, seed: int = 5) -> None:
        self._rng = np.random.default_rng(seed)

    def encode(self, flux, noise, mask=None, *, survey, bands):
        tall, wide = grid_of(flux, survey)
        return self._rng.normal(size=(len(flux), 32, tall, wide)).astype(np.float32)


def grid_of(flux: np.ndarray, survey: str) -> tuple[int, int]:
    """Rows and columns of tokens of a view."""
    each = round(TOKEN / SURVEYS[survey][1])
    return flux.shape[-2] // each, flux.shape[-1] // each
