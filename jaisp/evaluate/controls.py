"""What an encoder must beat, each behind the same `encode` as the model.

The shuffled pairing needs no encoder of its own, and fresh weights come from
`jaisp.model.random_model`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from jaisp.evaluate.views import Encoder
from jaisp.store.layout import UNUSABLE

PIXELS_PER_TOKEN = 4
SIDE = 3 * PIXELS_PER_TOKEN
STAMP = SIDE**2
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
        blank = np.where(np.isfinite(flux), drawn, np.nan).astype(np.float32)
        return self._encoder.encode(blank, noise, mask, survey=survey, bands=bands)


class Pixels:
    """Raw pixels as tokens, for matching by normalised cross-correlation.

    A token is the 3 × 3 tokens around it, in pixels of a quarter of a token, the same grid for
    every survey: asinh of the S/N of each of `pixel_layers`, less its own mean, so that the cosine
    of two tokens of one band is their cross-correlation coefficient.
    """

    def __init__(self, pixels_per_token: Mapping[str, int]) -> None:
        self._pixels_per_token = pixels_per_token

    def encode(
        self, flux: Any, noise: Any, mask: Any, *, survey: str, bands: Sequence[str]
    ) -> Float32[np.ndarray, "sample dimension row column"]:
        """Tokens of STAMP numbers a layer; pixels outside of the crop count as sky."""
        good = np.isfinite(flux) & (noise > 0) & ((mask & np.uint8(UNUSABLE)) == 0)
        tokens = flux.shape[-1] // self._pixels_per_token[survey]
        snr = coarse_snr(flux, noise, good, tokens * PIXELS_PER_TOKEN)
        if len(bands) > 1:
            together = snr.sum(axis=1, keepdims=True) / np.sqrt(len(bands))
            snr = np.concatenate([snr, together], axis=1)
        image = np.arcsinh(snr)
        around = np.pad(image, ((0, 0), (0, 0), *[(PIXELS_PER_TOKEN, PIXELS_PER_TOKEN)] * 2))
        stamps = np.lib.stride_tricks.sliding_window_view(around, (SIDE, SIDE), axis=(2, 3))
        stamps = stamps[:, :, ::PIXELS_PER_TOKEN, ::PIXELS_PER_TOKEN]
        stamps = stamps - stamps.mean(axis=(-2, -1), keepdims=True)
        samples, layers = stamps.shape[:2]
        flat = np.moveaxis(stamps.reshape(samples, layers, tokens, tokens, STAMP), -1, 2)
        return np.ascontiguousarray(flat.reshape(samples, -1, tokens, tokens), np.float32)


def pixel_layers(bands: Sequence[str]) -> list[str]:
    """What `Pixels` gives stamps of: every band, and where there are several, their sum."""
    return [*bands, ALL_BANDS] if len(bands) > 1 else list(bands)


def coarse_snr(
    flux: Float[np.ndarray, "*image y x"],
    noise: Float[np.ndarray, "*image y x"],
    good: Bool[np.ndarray, "*image y x"],
    pixels: int,
) -> Float[np.ndarray, "*image v u"]:
    """S/N of an image summed onto `pixels` × `pixels` of the same sky; 0 where nothing is good.

    Each coarse pixel is the good pixels' flux, by the share of each that it covers, over the
    noise of that sum, the native noise taken as white.
    """
    total = _summed(np.where(good, flux, 0).astype(np.float32), pixels)
    variance = _summed(np.where(good, noise, 0).astype(np.float32) ** 2, pixels, power=2)
    return np.where(variance > 0, total / np.sqrt(np.where(variance > 0, variance, 1)), 0)


def _summed(
    image: Float32[np.ndarray, "*image y x"], pixels: int, power: int = 1
) -> Float32[np.ndarray, "*image v u"]:
    fine = image.shape[-1]
    if fine % pixels == 0:
        block = fine // pixels
        return image.reshape(*image.shape[:-2], pixels, block, pixels, block).sum(axis=(-3, -1))
    share = _shares(fine, pixels) ** power
    return share @ image @ share.T


def _shares(fine: int, coarse: int) -> Float32[np.ndarray, "coarse fine"]:
    """Share of each fine pixel's length that each coarse pixel covers."""
    edges, steps = np.arange(coarse + 1) / coarse, np.arange(fine + 1) / fine
    low = np.maximum(edges[:-1, None], steps[None, :-1])
    high = np.minimum(edges[1:, None], steps[None, 1:])
    return (np.maximum(high - low, 0) * fine).astype(np.float32)
