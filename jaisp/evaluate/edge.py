"""How much sky encoders are shown around what is measured."""

import math
from collections.abc import Sequence

from jaisp.config.evaluate import EvaluateConfig
from jaisp.errors import UserError
from jaisp.evaluate.scene import Encoder


def with_edge(
    settings: EvaluateConfig, encoders: Sequence[Encoder], token_arcsec: float
) -> EvaluateConfig:
    """The settings with `edge_tokens` that are known.

    A number given stays. Else they are whole tokens that hold what changes an encoder's token, its
    `receptive_field_arcsec`, and of several encoders the most, so that all are shown the same sky.
    Raises UserError for an encoder that doesn't say how far it sees.
    """
    if settings.edge_tokens is not None or not encoders:
        return settings
    reaches = [
        float(encoder.receptive_field_arcsec)
        for encoder in encoders
        if hasattr(encoder, "receptive_field_arcsec")
    ]
    if len(reaches) < len(encoders):
        raise UserError(
            "evaluate.edge_tokens: give a number, for an encoder does not say how far it sees "
            "(receptive_field_arcsec)"
        )
    # Sums of pixels and tokens come to a rounding error more than whole tokens.
    most = math.ceil(max(reaches) / token_arcsec - 1e-9)
    return settings.model_copy(update={"edge_tokens": most})
