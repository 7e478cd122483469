"""Config section `train`."""

from typing import Literal

from pydantic import Field, model_validator

from jaisp.config.section import Section


class PairsConfig(Section):
    """How often each kind of pair is drawn. A kind that the surveys don't allow is left out."""

    surveys: float = Field(0.8, ge=0.0, description="Two surveys of the same sky.")
    bands: float = Field(0.1, ge=0.0, description="Two disjoint sets of bands of one survey.")
    degraded: float = Field(
        0.1, ge=0.0, description="A view and its copy with noise added and its PSF blurred."
    )

    @model_validator(mode="after")
    def _something_is_drawn(self) -> "PairsConfig":
        if self.surveys + self.bands + self.degraded <= 0:
            raise ValueError("train.pairs: one of surveys, bands and degraded must be above 0")
        return self


class VicregConfig(Section):
    """Weights of VICReg's terms; `information` has none to choose."""

    alignment: float = Field(25.0, ge=0.0, description="Weight of the alignment term.")
    variance: float = Field(25.0, ge=0.0, description="Weight of the variance term.")
    covariance: float = Field(1.0, ge=0.0, description="Weight of the covariance term.")


class SigregConfig(Section):
    """SIGReg, for `objective: sigreg`; its one weight, and what its test is made on."""

    weight: float = Field(
        0.05, gt=0.0, lt=1.0, description="λ: the loss is (1 − λ) alignment + λ normality."
    )
    slices: int = Field(256, ge=1, description="Random directions that a step is tested along.")
    tokens: int = Field(
        1024, ge=2, description="Tokens that a step is tested on, drawn by their weights."
    )


class PositionConfig(Section):
    """Point sources added to training sky, whose places the tokens must tell."""

    weight: float = Field(0.03, ge=0.0, description="Weight of the position term; 0: none.")
    sources: int = Field(24, ge=1, description="Sources added a step, in each survey.")
    broadest: float = Field(
        1.0,
        ge=1.0,
        le=2.0,
        description="They are as wide as the PSF, or up to so many times as wide: as on sky of "
        "poorer seeing.",
    )
    aligned: bool = Field(
        True, description="Their tokens count among the pairs of two surveys, too."
    )


class PhotometryConfig(Section):
    """Fluxes on a pair's views, in all bands, that the tokens of either must tell."""

    weight: float = Field(0.1, ge=0.0, description="Weight of the photometry term; 0: none.")


class TrainConfig(Section):
    """The objective, the pairs it is taken over, and the optimiser."""

    seed: int = Field(1, ge=0, description="Seed of every random choice.")
    steps: int = Field(600, ge=1, description="Optimiser steps.")
    batch: int = Field(6, ge=2, description="Patches of a step, of all processes together.")
    crop_tokens: int = Field(
        28, ge=2, description="Side of a view, in tokens; at most two less than a patch has."
    )
    shift_tokens: int = Field(
        5, ge=0, description="The crops of a pair lie up to this far apart, in tokens each way."
    )
    pairs: PairsConfig = PairsConfig()
    objective: Literal["information", "vicreg", "sigreg"] = Field(
        "information",
        description="Form of alignment, variance and covariance (docs/objective.md).",
    )
    block: int = Field(
        64,
        ge=2,
        description="For `information`: dimensions that a step compares with one another, in "
        "random blocks.",
    )
    own_dimensions: int = Field(
        0,
        ge=0,
        description="For `information`: dimensions that two surveys need not agree on; views of "
        "one survey must.",
    )
    vicreg: VicregConfig = VicregConfig()
    sigreg: SigregConfig = SigregConfig()
    position: PositionConfig = PositionConfig()
    photometry: PhotometryConfig = PhotometryConfig()
    sampling: Literal["signal", "sources", "uniform"] = Field(
        "signal",
        description="Where crops go: to tokens of high S/N, of detected sources, or anywhere.",
    )
    dither: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Chance of a pair, and of a source added for positions, to have its pixels "
        "displaced by a part of a pixel, both views alike.",
    )
    band_dropout: float = Field(
        0.1, ge=0.0, lt=1.0, description="Chance of each band to be left out of a view."
    )
    sky_weight: float = Field(
        0.02, gt=0.0, le=1.0, description="Weight of an empty token; one full of signal has 1."
    )
    wing_weight: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="What tokens of a source beside its brightest count, of their weight.",
    )
    ema: float = Field(
        0.0, ge=0.0, lt=1.0, description="Momentum of an averaged teacher; 0: no teacher."
    )
    learning_rate: float = Field(2e-3, gt=0.0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0.0, description="Weight decay of AdamW.")
    warmup: float = Field(0.05, ge=0.0, le=1.0, description="Share of the steps to warm up in.")
    gradient_clip: float = Field(5.0, gt=0.0, description="Largest gradient norm.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of products and convolutions in the encoders; losses are always float32. "
        "bfloat16 is for GPUs.",
    )
    compile: bool = Field(
        False, description="Compile the encoders (torch.compile): minutes, then faster steps."
    )
    record_every: int = Field(10, ge=1, description="Steps a line of history.jsonl.")
    validate_every: int = Field(100, ge=1, description="Steps from one validation to the next.")
    checkpoint_every: int = Field(100, ge=1, description="Steps from one checkpoint to the next.")
    tensorboard: bool = Field(
        False,
        description="Also write the history for TensorBoard, to results/RUN/tensorboard; needs "
        "the extra `tensorboard`.",
    )
    memory_gib: float = Field(
        1.5,
        ge=0.0,
        description="Training patches up to this size are kept in memory, by every process.",
    )
    workers: int = Field(
        0,
        ge=0,
        description="Processes that read patches which are not kept; 0: the training's own.",
    )
