"""How the frozen encoders are measured."""

from pydantic import Field

from jaisp.config.section import Section

# What is measured side by side: parts, each a job, and what each of them measures, in turn, by the
# names in `jaisp.evaluate.parts`. Small measures share the start of Python; those that grow with
# the copies of injected sky stand alone. The longest comes first, so that none is left at the end.
PARTS = {
    "retrieval": ("retrieval", "bands", "alignment"),
    "registration": ("registration", "deblending"),
    "truth": ("truth",),
    "position": ("position",),
    "crowded": ("crowded",),
}


class EvaluateConfig(Section):
    """Which sources count, how views are cropped, and how intervals are drawn."""

    snr_min: float = Field(
        5.0, gt=0, description="Sources count above this S/N in every survey concerned."
    )
    alignment_snr_min: float = Field(
        10.0, gt=0, description="Sources whose positions are compared, S/N in both bands."
    )
    crop_tokens: int = Field(
        4, ge=4, description="Whole tokens by which the two views' crops are displaced, each way."
    )
    edge_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens of unseen sky around a patch, or around a source's, that encoders are "
        "shown, each way; default: as far as the model sees.",
    )
    window_tokens: int = Field(
        8, ge=1, description="Scope `patch`: candidates up to this far from the right place."
    )
    patches: int = Field(
        128, ge=1, description="Test patches measured at most, evenly over the sky."
    )
    train_patches: int | None = Field(
        None,
        ge=1,
        description="Training patches, at most, of whose sources and displacements probes learn, "
        "evenly over the sky; default: as many as `patches`.",
    )
    band_patches: int = Field(
        12, ge=1, description="Test patches on which single bands meet, evenly drawn of those."
    )
    withheld_patches: int = Field(
        10, ge=1, description="Test patches on which each band is withheld, evenly drawn."
    )
    alignment_squares: int = Field(
        6, ge=1, description="Squares of patches, up to 130″ a side, on which bands are aligned."
    )
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of an interval.")
    seed: int = Field(1, ge=0, description="Of crops, controls and intervals.")

    def patches_of(self, split: str) -> int:
        """How many patches of a split are looked at, at most."""
        return (self.train_patches or self.patches) if split == "train" else self.patches

    @property
    def edge(self) -> int:
        """`edge_tokens`, where they are known: given, or found by `jaisp.evaluate.edge`."""
        assert self.edge_tokens is not None, "how far encoders see was not asked"
        return self.edge_tokens
