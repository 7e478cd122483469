"""A window of sky as encoders are shown it, each in turn.

What networks are given of the pixels is made once: it is the same for the model, for its twin with
fresh weights, and for both where they are shown some of the bands alone.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from jaisp.model import Model, Prepared


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns (sample, band, y, x) into tokens (sample, dimension, row, column)."""

    def encode(self, flux: Any, noise: Any, mask: Any, *, survey: str, bands: Sequence[str]) -> Any:
        """Shared tokens of a batch of views of one survey."""


class WithoutBand:
    """An encoder that isn't shown one of the bands."""

    def __init__(self, encoder: Encoder, band: str) -> None:
        self.encoder, self.band = encoder, band

    def encode(self, flux: Any, noise: Any, mask: Any, *, survey: str, bands: Sequence[str]) -> Any:
        """Tokens of all other bands."""
        left = [band for band in bands if band != self.band]
        planes = _of_bands((flux, noise, mask), bands, left)
        return self.encoder.encode(*planes, survey=survey, bands=left)


class Scene:
    """Planes [band, y, x] of one survey; flux and noise in nJy."""

    def __init__(self, flux: Any, noise: Any, mask: Any, survey: str, bands: Sequence[str]) -> None:
        self._planes = flux[None], noise[None], mask[None]
        self._survey, self._bands = survey, list(bands)
        self._prepared: Prepared | None = None
        self._noise: torch.Tensor | None = None

    def encode(self, encoder: Encoder, bands: Sequence[str] | None = None, **more: Any) -> Any:
        """An encoder's tokens [1, dimension, row, column]; bands: those that it is shown, default
        all; more: given to its `encode`."""
        bands = self._bands if bands is None else list(bands)
        seeing = encoder.encoder if isinstance(encoder, WithoutBand) else encoder
        with torch.inference_mode():
            if isinstance(seeing, Model):
                if isinstance(encoder, WithoutBand):
                    bands = [band for band in bands if band != encoder.band]
                return seeing.encode_prepared(self._of(seeing).of(bands), **more)
            planes = _of_bands(self._planes, self._bands, bands)
            return encoder.encode(*planes, survey=self._survey, bands=bands, **more)

    def _of(self, model: Model) -> Prepared:
        """What models are given; they may have measured the noise otherwise."""
        noise = model.typical_noise(self._survey)
        if self._prepared is None or self._noise is None or not torch.equal(noise, self._noise):
            prepared = model.prepare(*self._planes, survey=self._survey, bands=self._bands)
            self._prepared, self._noise = prepared, noise
        return self._prepared


def _of_bands(planes: Sequence[Any], every: Sequence[str], bands: Sequence[str]) -> Sequence[Any]:
    """Planes [sample, band, y, x] of some of the bands; of all of them, as they are."""
    if list(bands) == list(every):
        return planes
    chosen = [every.index(band) for band in bands]
    return tuple(values[:, chosen] for values in planes)
