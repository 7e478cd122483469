"""The model: one encoder a survey, and one space of shared tokens."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jaisp.config.section import Section
from jaisp.errors import UserError
from jaisp.model.encoder import NOTHING_BEYOND, Encoder, Sides
from jaisp.model.inputs import as_flags, as_planes, network_inputs
from jaisp.model.size import SIZES
from jaisp.model.trunk import Trunk


class SurveyPixels(Section):
    """What an encoder is told of its survey."""

    bands: list[str]
    grid_arcsec: float
    pixels_per_token: int


class Architecture(Section):
    """All that is needed to build a model's network."""

    surveys: dict[str, SurveyPixels]
    token_arcsec: float
    dimensions: int
    size: Literal["tiny", "small", "base"]


class Prepared(NamedTuple):
    """Images of one survey as networks are given them: `inputs` [sample, band, 3, y, x], and how
    many tokens beyond them have no pixel (see `Encoder`)."""

    survey: str
    bands: tuple[str, ...]
    inputs: Tensor
    beyond: Sides

    def of(self, bands: Sequence[str]) -> "Prepared":
        """The same images in some of the bands."""
        if tuple(bands) == self.bands:
            return self
        chosen = [self.bands.index(band) for band in bands]
        return self._replace(bands=tuple(bands), inputs=self.inputs[:, chosen])


class Model(nn.Module):
    """Encoders of all surveys of a run, and one trunk.

    `config` says what it is made of; `receptive_field_arcsec` how far from a token's edge
    pixels can change it.
    """

    centre: Tensor
    frame: Tensor

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        size = SIZES[config.size]
        encoders = {
            name: Encoder(len(survey.bands), survey.pixels_per_token, survey.grid_arcsec, size)
            for name, survey in config.surveys.items()
        }
        self.encoders = nn.ModuleDict(encoders)
        (measured,) = {encoder.measured for encoder in encoders.values()}
        self.trunk = Trunk(size, measured, config.token_arcsec, config.dimensions)
        self.receptive_field_arcsec = self.trunk.reach_arcsec + max(
            encoder.reach_arcsec for encoder in encoders.values()
        )
        for name, survey in config.surveys.items():
            self.register_buffer(f"noise_{name}", torch.ones(len(survey.bands)))
        # Fitted on training tokens at the end of training; until then they change nothing.
        self.register_buffer("centre", torch.zeros(config.dimensions))
        self.register_buffer("frame", torch.eye(config.dimensions))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.centre.device

    def typical_noise(self, survey: str) -> Tensor:
        """The typical background noise of each band in the training data, nJy."""
        return self.get_buffer(f"noise_{survey}")

    def encode(
        self,
        flux: Tensor | np.ndarray,
        noise: Tensor | np.ndarray,
        mask: Tensor | np.ndarray | None = None,
        *,
        survey: str,
        bands: Sequence[str],
        scales: bool = False,
    ) -> Any:
        """Shared tokens [sample, dimension, row, column] of images of one survey.

        Parameters
        ----------
        flux, noise: nJy a pixel, [sample, band, y, x], noise 1 σ. NaN flux, and noise that is
            not above 0, are missing.
        mask: bits of `jaisp.store.layout.Flag`, the same shape.
        survey, bands: which encoder, and the names of the bands given: any of the survey's, in
            any order.
        scales: also return a dict of features by scale, each [sample, channel, y, x]: `fine`
            (between pixels and tokens), `token` (before the projector).

        Raises UserError for an unknown survey or band, or a size that is not whole tokens.
        """
        prepared = self.prepare(flux, noise, mask, survey=survey, bands=bands)
        return self.encode_prepared(prepared, scales=scales)

    def prepare(
        self,
        flux: Tensor | np.ndarray,
        noise: Tensor | np.ndarray,
        mask: Tensor | np.ndarray | None = None,
        *,
        survey: str,
        bands: Sequence[str],
    ) -> Prepared:
        """What networks are given of images, for `encode_prepared`; as `encode` is given them."""
        chosen = self._band_numbers(survey, bands)
        flux, noise = as_planes(flux, self.device), as_planes(noise, self.device)
        mask = None if mask is None else as_flags(mask, self.device)
        self._check_shape(survey, bands, flux, noise, mask)
        encoder = self.encoders[survey]
        assert isinstance(encoder, Encoder)
        # Most of a network's work is on pixels: where there are none, it is left out.
        part, beyond = encoder.covered(flux)
        flux, noise = flux[part], noise[part]
        mask = None if mask is None else mask[part]
        inputs = network_inputs(flux, noise, mask, self.typical_noise(survey)[chosen])
        return Prepared(survey, tuple(bands), inputs, beyond)

    def encode_prepared(self, prepared: Prepared, *, scales: bool = False) -> Any:
        """What `encode` returns, of images that are prepared already."""
        chosen = self._band_numbers(prepared.survey, prepared.bands)
        features = self.features(prepared.survey, prepared.inputs, chosen, prepared.beyond)
        tokens = self.in_frame(features.pop("shared"))
        return (tokens, features) if scales else tokens

    def features(
        self, survey: str, inputs: Tensor, bands: Tensor, beyond: Sides = NOTHING_BEYOND
    ) -> dict[str, Tensor]:
        """Features by scale: `fine` (the last grid before tokens), `token` (before the projector),
        `shared`, which are not yet in the frame.

        inputs: [sample, band, 3, y, x], of the bands of these numbers. beyond: see `Encoder`.
        """
        found = self.encoders[survey](inputs, bands, beyond)
        token, shared = self.trunk(found.what, found.measured)
        return {"fine": found.fine, "token": token, "shared": shared}

    def in_frame(self, tokens: Tensor) -> Tensor:
        """The fixed linear map, fitted when training ends, from projector to shared tokens."""
        centred = tokens - self.centre[:, None, None]
        return torch.einsum("de,behw->bdhw", self.frame, centred)

    def _band_numbers(self, survey: str, bands: Sequence[str]) -> Tensor:
        if survey not in self.config.surveys:
            known = ", ".join(self.config.surveys)
            raise UserError(f"survey {survey!r}: the model knows {known}")
        names = self.config.surveys[survey].bands
        unknown = [band for band in bands if band not in names]
        if unknown or not len(bands):
            raise UserError(
                f"bands of {survey}: {', '.join(unknown) or 'none given'}; "
                f"the model knows {', '.join(names)}"
            )
        if len(set(bands)) < len(bands):
            raise UserError(f"bands of {survey}: {', '.join(bands)}: a band is named twice")
        return torch.tensor([names.index(band) for band in bands], device=self.device)

    def _check_shape(
        self, survey: str, bands: Sequence[str], flux: Tensor, noise: Tensor, mask: Tensor | None
    ) -> None:
        n = self.config.surveys[survey].pixels_per_token
        if flux.ndim != 4 or flux.shape[1] != len(bands):
            raise UserError(
                f"{survey}: flux must be (sample, band, y, x) with {len(bands)} bands, "
                f"not {tuple(flux.shape)}"
            )
        if noise.shape != flux.shape or (mask is not None and mask.shape != flux.shape):
            raise UserError(f"{survey}: noise and mask must have the shape of flux")
        if flux.shape[2] % n or flux.shape[3] % n or not flux.numel():
            raise UserError(
                f"{survey}: {flux.shape[2]} × {flux.shape[3]} pixels are not whole tokens of {n}"
            )


def random_model(model: Model, seed: int = 0) -> Model:
    """The same architecture with fresh weights, as a control; `seed` chooses them.

    What was measured of the sky's noise stays.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Model(model.config)
    fitted = ("centre", "frame")
    for name, measured in model.named_buffers():
        if name not in fitted:
            fresh.get_buffer(name).copy_(measured)
    return fresh.to(model.device).train(model.training)
