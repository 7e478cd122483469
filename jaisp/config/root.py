"""The whole config."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from jaisp.config.evaluate import EvaluateConfig
from jaisp.config.fetch import FetchConfig
from jaisp.config.geometry import CellOrder, Moc, PatchConfig, Region, SplitConfig
from jaisp.config.inject import InjectConfig
from jaisp.config.model import ModelConfig
from jaisp.config.section import Section
from jaisp.config.simulate import SimulateConfig
from jaisp.config.survey import Name, Survey
from jaisp.config.train import TrainConfig


class WarpConfig(Section):
    """How tiles are resampled onto patch grids."""

    kernel: Literal["lanczos3", "lanczos5", "bicubic", "exact"] = Field(
        "lanczos3", description="Ours (lanczos3, lanczos5), or reproject's for comparison."
    )
    combine: Literal["margin", "inverse_variance"] = Field(
        "margin",
        description="Where tiles overlap: the one in which a pixel lies deepest, or their mean.",
    )


class StoreConfig(Section):
    """How patches stand on disk."""

    flux: Literal["int16", "float32"] = Field(
        "int16", description="Compressed codes good to 1/8 σ, or plain nJy."
    )


class Config(Section):
    """One run: its sky, its surveys, and what each stage does with them."""

    run: Name = Field(description="Name of the run: results go to results/RUN/.")
    data: Path = Field(
        Path(), description="Folder that relative paths start from; default: the config's own."
    )
    sky: Annotated[list[Region], Field(min_length=1)] | Moc = Field(
        description="A rectangle, a list of rectangles, or a MOC."
    )
    cell_order: CellOrder = Field(
        "auto", description="HEALPix order of the cells; auto: fields up to 25′ are one cell."
    )
    patch: PatchConfig = PatchConfig()
    split: SplitConfig = SplitConfig()
    surveys: dict[Name, Survey] = Field(min_length=2, description="Two or more, by name.")
    simulate: SimulateConfig = SimulateConfig()
    fetch: FetchConfig = FetchConfig()
    warp: WarpConfig = WarpConfig()
    store: StoreConfig = StoreConfig()
    model: ModelConfig = ModelConfig()
    inject: InjectConfig = InjectConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="before")
    @classmethod
    def _one_region_is_a_list(cls, values: dict) -> dict:
        sky = values.get("sky") if isinstance(values, dict) else None
        return {**values, "sky": [sky]} if isinstance(sky, dict) and "moc" not in sky else values

    @model_validator(mode="after")
    def _patch_holds_whole_tokens(self) -> "Config":
        tokens = self.patch.arcsec / self.model.token_arcsec
        if not math.isclose(tokens, round(tokens), rel_tol=1e-6) or round(tokens) < 1:
            raise ValueError(
                f"patch.arcsec ({self.patch.arcsec:g}) must be a multiple of "
                f"model.token_arcsec ({self.model.token_arcsec:g})"
            )
        return self

    @model_validator(mode="after")
    def _surveys_agree_on_something(self) -> "Config":
        own, all_of_them = self.train.own_dimensions, self.model.dimensions
        if own >= all_of_them:
            raise ValueError(
                f"train.own_dimensions ({own}) must be below model.dimensions ({all_of_them})"
            )
        if own and self.train.objective != "information":
            raise ValueError(
                f"train.own_dimensions ({own}) is for `objective: information`, "
                f"not {self.train.objective}; set it to 0"
            )
        return self

    @property
    def results(self) -> Path:
        """Where the run's results go, from the working folder."""
        return Path("results") / self.run

    @property
    def patch_tokens(self) -> int:
        """Tokens along a patch's side."""
        return round(self.patch.arcsec / self.model.token_arcsec)

    def grid(self, survey: str) -> tuple[int, float]:
        """Pixels per token, and the size of a survey's patch pixel in arcsec."""
        n = max(1, round(self.model.token_arcsec / self.surveys[survey].pixel_arcsec))
        return n, self.model.token_arcsec / n

    def patch_pixels(self, survey: str) -> int:
        """Pixels along a patch's side."""
        return self.patch_tokens * self.grid(survey)[0]
