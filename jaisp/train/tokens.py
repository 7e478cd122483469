"""Tokens of a batch of views."""

from torch import Tensor, arange

from jaisp.model import Model
from jaisp.train.views import Views


def encode(model: Model, views: Views) -> Tensor:
    """Tokens [sample, dimension, row, column] of a batch of views, not yet in the model's frame."""
    bands = arange(views.inputs.shape[1], device=model.device)
    return model.features(views.survey, views.inputs.to(model.device), bands)["shared"]


def pick(tokens: Tensor, place: Tensor) -> Tensor:
    """Tokens [token, dimension] at flattened places (sample, row, column)."""
    return tokens.permute(0, 2, 3, 1).flatten(0, 2)[place.to(tokens.device)]
