"""A window of sky as encoders are shown it, each in turn.

What networks are given of the pixels is made once: it is the same for the model, for its twin with
fresh weights, and for both without one of the bands.
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
        left = [number for number, band in enumerate(bands) if band != self.band]
        planes = (values[:, left] for values in (flux, noise, mask))
        return self.encoder.encode(*planes, survey=survey, bands=[bands[i] for i in left])


class Scene:
    """Planes [band, y, x] of one survey; flux and noise in nJy."""

    def __init__(self, flux: Any, noise: Any, mask: Any, survey: str, bands: Sequence[str]) -> None:
        self._planes = flux[None], noise[None], mask[None]
        self._survey, self._bands = survey, list(bands)
        self._prepared: Prepared | None = None
        self._noise: torch.Tensor | None = None

    def encode(self, encoder: Encoder, **more: Any) -> Any:
        """An encoder's tokens [1, dimension, row, column]; more: given to its `encode`."""
        seeing = encoder.encoder if isinstance(encoder, WithoutBand) else encoder
        with torch.inference_mode():
            if not isinstance(seeing, Model):
                return encoder.encode(*self._planes, survey=self._survey, bands=self._bands, **more)
            prepared = self._of(seeing)
            if isinstance(encoder, WithoutBand):
                prepared = prepared.without(encoder.band)
            return seeing.encode_prepared(prepared, **more)

    def _of(self, model: Model) -> Prepared:
        """What models are given; they may have measured the noise otherwise."""
        noise = model.typical_noise(self._survey)
        if self._prepared is None or self._noise is None or not torch.equal(noise, self._noise):
            prepared = model.prepare(*self._planes, survey=self._survey, bands=self._bands)
            self._prepared, self._noise = prepared, noise
        return self._prepared
