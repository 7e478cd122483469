"""What an encoder must beat, each behind the same `encode` as the model.

The shuffled pairing needs no encoder of its own, and fresh weights come from
`jaisp.model.random_model`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.search import directions
from jaisp.store.layout import UNUSABLE

PIXELS_PER_TOKEN = 4
OWN = PIXELS_PER_TOKEN**2
ALL_BANDS = "all bands"


class Blank:
    """An encoder shown noise instead of sky: drawn from the real noise plane, missing where the
    real pixels are, under the real mask."""

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self._encoder = encoder
        self._rng = np.random.default_rng(seed)

    def encode(self, flux: Any, noise: Any, mask: Any, *, survey: str, bands: Sequence[str]) -> Any:
        """Tokens of noise that shares nothing with the sky but the planes."""
        drawn = self._rng.standard_normal(flux.shape, np.float32) * noise
        blank = np.where(np.isfinite(flux), drawn, np.float32(np.nan))
        return self._encoder.encode(blank, noise, mask, survey=survey, bands=bands)


class Pixels:
    """Raw pixels as tokens, for matching by normalised cross-correlation (`pixel_stamps`).

    A token is its own pixels, of a quarter of a token, the same grid for every survey: asinh of
    the S/N of each of `pixel_layers`. around: tokens on each side that a stamp needs, too.
    """

    around = 1

    def __init__(self, pixels_per_token: Mapping[str, int]) -> None:
        self._pixels_per_token = pixels_per_token

    def encode(
        self, flux: Any, noise: Any, mask: Any, *, survey: str, bands: Sequence[str]
    ) -> Float32[np.ndarray, "sample dimension row column"]:
        """Tokens of OWN numbers a layer."""
        good = np.isfinite(flux) & (noise > 0) & ((mask & np.uint8(UNUSABLE)) == 0)
        tokens = flux.shape[-1] // self._pixels_per_token[survey]
        snr = coarse_snr(flux, noise, good, tokens * PIXELS_PER_TOKEN)
        if len(bands) > 1:
            together = snr.sum(axis=1, keepdims=True) / np.sqrt(len(bands))
            snr = np.concatenate([snr, together], axis=1)
        samples, layers = snr.shape[:2]
        shape = samples, layers, tokens, PIXELS_PER_TOKEN, tokens, PIXELS_PER_TOKEN
        squares = np.arcsinh(snr).reshape(shape).transpose(0, 1, 3, 5, 2, 4)
        return np.ascontiguousarray(squares.reshape(samples, -1, tokens, tokens), np.float32)


def pixel_stamps(
    grid: Float32[np.ndarray, "patch tall wide dimension"],
    layer: int,
    tokens: Int[np.ndarray, "token 3"],
) -> Float32[np.ndarray, "token pixel"]:
    """Pixels of one layer on the 3 × 3 tokens around some, less their mean, of length one: the
    cosine of two stamps is their cross-correlation coefficient.

    grid: as `Pixels` gives them, with a token more on each side than `tokens`, which are patch, row
    and column, count. What lies beyond the crop is zero, as empty sky is.
    """
    own = grid[..., layer * OWN : (layer + 1) * OWN]
    side = 3 * PIXELS_PER_TOKEN
    stamps = np.empty((len(tokens), 3, PIXELS_PER_TOKEN, 3, PIXELS_PER_TOKEN), np.float32)
    patch, row, column = tokens.T
    for y, x in np.ndindex(3, 3):
        square = own[patch, row + y, column + x]
        stamps[:, y, :, x] = square.reshape(-1, PIXELS_PER_TOKEN, PIXELS_PER_TOKEN)
    flat = stamps.reshape(len(tokens), side * side)
    return directions(flat - flat.mean(axis=1, keepdims=True))


def pixel_layers(bands: Sequence[str]) -> list[str]:
    """What `Pixels` gives stamps of: every band, and where there are several, their sum."""
    return [*bands, ALL_BANDS] if len(bands) > 1 else list(bands)


def coarse_snr(
    flux: Float[np.ndarray, "*image y x"],
    noise: Float[np.ndarray, "*image y x"],
    good: Bool[np.ndarray, "*image y x"],
    pixels: int,
) -> Float[np.ndarray, "*image v u"]:
    """S/N of an image summed onto `pixels` a row of the same sky; 0 where nothing is good.

    Each coarse pixel is the good pixels' flux, by the share of each that it covers, over the
    noise of that sum, the native noise taken as white.
    """
    total = _summed(np.where(good, flux, 0).astype(np.float32), pixels)
    variance = _summed(np.where(good, noise, 0).astype(np.float32) ** 2, pixels, power=2)
    return np.where(variance > 0, total / np.sqrt(np.where(variance > 0, variance, 1)), 0)


def _summed(
    image: Float32[np.ndarray, "*image y x"], pixels: int, power: int = 1
) -> Float32[np.ndarray, "*image v u"]:
    *images, tall, wide = image.shape
    rows = round(tall * pixels / wide)
    if wide % pixels == 0:
        block = wide // pixels
        return image.reshape(*images, rows, block, pixels, block).sum(axis=(-3, -1))
    return _shares(tall, rows) ** power @ image @ (_shares(wide, pixels) ** power).T


def _shares(fine: int, coarse: int) -> Float32[np.ndarray, "coarse fine"]:
    """Share of each fine pixel's length that each coarse pixel covers."""
    edges, steps = np.arange(coarse + 1) / coarse, np.arange(fine + 1) / fine
    low = np.maximum(edges[:-1, None], steps[None, :-1])
    high = np.minimum(edges[1:, None], steps[None, 1:])
    return (np.maximum(high - low, 0) * fine).astype(np.float32)
