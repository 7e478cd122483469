"""Config section `model`."""

from typing import Literal

from pydantic import Field

from jaisp.config.section import Section


class ModelConfig(Section):
    """The encoders: how much sky a token covers, and how large the networks are."""

    token_arcsec: float = Field(1.6, gt=0.0, description="Side of the square that a token covers.")
    size: Literal["tiny", "small", "base"] = Field(
        "small", description="Width and depth of the encoders; tiny is for minutes on a CPU."
    )
    dimensions: int = Field(64, ge=2, le=4096, description="Length of a shared token.")
