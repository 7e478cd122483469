"""The term that keeps brightness: one linear map for all surveys tells fluxes from a token.

Fluxes are measured on the training views' own pixels, in every band that either view of a pair
shows: from a token of one survey, those of the other are asked for, too. No catalogue is needed.
docs/objective.md has the formula and what it is worth.
"""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from jaisp.model import Model
from jaisp.model.encoder import Encoder, measure
from jaisp.model.fluxes import SIDES
from jaisp.model.moments import WINDOWS, Moments
from jaisp.train.ranks import summed

KINDS = len(SIDES) + len(WINDOWS)
FEWEST_PIXELS = 0.9  # that must be valid
LEAST_ERROR = 0.03  # of asinh(flux), about relative: no flux is asked for better


class Fluxes(NamedTuple):
    """Fluxes about the tokens of a batch of views of one survey, [token, band · kind].

    value: asinh of the flux in units of its typical noise. error: of value. known: whether enough
    pixels are valid.
    """

    value: Tensor
    error: Tensor
    known: Bool[Tensor, "token target"]


class FluxHead(nn.Module):
    """A linear map from a shared token to fluxes in all bands of all surveys.

    It is the same for tokens of all surveys, so that they tell brightness in one frame. Only
    training knows it: it is no part of the model. bands: how many each survey has.
    """

    def __init__(self, dimensions: int, bands: Mapping[str, int], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.maps = nn.ModuleDict(
                {s: nn.Linear(dimensions, n * KINDS) for s, n in bands.items()}
            )

    def forward(
        self, tokens: Float[Tensor, "token dimension"], survey: str
    ) -> Float[Tensor, "token target"]:
        """`Fluxes.value` of one survey's bands, as tokens of any survey tell it."""
        return self.maps[survey](tokens)


class Photometer(nn.Module):
    """What measures the fluxes that are asked for: the moments of a fresh model, whose filters are
    the PSF's, as they are before any training."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.moments = nn.ModuleDict()
        for survey, encoder in model.encoders.items():
            assert isinstance(encoder, Encoder)
            self.moments[survey] = copy.deepcopy(encoder.moments)
        self.pixels = {s: own.pixels_per_token for s, own in model.config.surveys.items()}
        self.requires_grad_(False)

    def forward(
        self,
        survey: str,
        inputs: Float32[Tensor, "sample band plane y x"],
        correlation: Float32[Tensor, "sample band"],
    ) -> Fluxes:
        """Fluxes about every token, by samples, rows and columns.

        inputs: as `network_inputs` gives them, of all bands. correlation: noise of a token's sum
        over that of white noise.
        """
        bands = torch.arange(inputs.shape[1], device=inputs.device)
        moments = self.moments[survey]
        assert isinstance(moments, Moments)
        _, (flux, noise, share) = measure(moments, inputs, bands, self.pixels[survey])
        # S/N under a filter is in its own noise, whatever its correlation.
        factor = torch.ones_like(flux)
        factor[: len(SIDES)] = correlation[:, :, None, None]
        error = noise * factor / (1 + flux.square()).sqrt()
        # [kind, sample, band, row, column] to [token, target]
        return Fluxes(
            *(
                each.permute(1, 3, 4, 2, 0).flatten(0, 2).flatten(1)
                for each in (flux.asinh(), error, share >= FEWEST_PIXELS)
            )
        )


def photometry_term(
    told: Float[Tensor, "token target"],
    fluxes: Fluxes,
    weight: Float[Tensor, " token"],
) -> Tensor:
    """Mean over all ranks' tokens, by their weights, and what is known of |told − true| / √error.

    Between a plain mean, of which faint fluxes are all, and errors in units of the noise, of which
    bright ones are all.
    """
    share = weight[:, None] * fluxes.known
    error = fluxes.error.clamp(min=LEAST_ERROR).sqrt()
    away = (told.float() - fluxes.value).abs() / error
    total, count = summed((share * away).sum(), share.sum())
    return total / count.clamp(min=1e-12)
