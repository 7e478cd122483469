"""What is measured and on which sky: a store, a model with its control, known skies."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.controls import Blank, Pixels
from jaisp.evaluate.injected import InjectedSky, open_injected
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.sources import Catalogue, find_sources
from jaisp.files import read_json
from jaisp.progress import track
from jaisp.store.reader import Store

# Some thousand tokens: enough to know their mean over training sky.
MEAN_PATCHES = 6
# Groups that stand on what others have made, and can be left out.
FURTHER = ("withheld", "transfer", "reconstruction")


@dataclass(frozen=True)
class Bench:
    """A run's encoders and the skies that they are measured on.

    encoders: the model, and its architecture with fresh weights, the control `random`; None
    measures only what needs no encoder. results: the run's folder, where skies with known answers
    stand; None when there are none. outcomes: where every source's outcome is kept. further:
    which of FURTHER to measure. controls: whether probes are fitted on controls' tokens, too.
    """

    store: Store
    settings: EvaluateConfig
    encoders: tuple[Encoder, Encoder] | None
    results: Path | None = None
    outcomes: Outcomes = field(default_factory=Outcomes)
    further: Collection[str] = FURTHER
    controls: bool = True

    @cached_property
    def test(self) -> Int[np.ndarray, " patch"]:
        """Test patches that two surveys cover, at most `settings.patches`."""
        return drawn(self.store, "test", self.settings.patches)

    @cached_property
    def train(self) -> Int[np.ndarray, " patch"]:
        """Some training patches that two surveys cover."""
        return drawn(self.store, "train", MEAN_PATCHES)

    @cached_property
    def why_not(self) -> str | None:
        """Why no encoder can be measured on this field; None when one can."""
        if self.encoders is None:
            return "no trained model"
        if not len(self.test):
            return "no held-out sky: the split has no test patch"
        if not len(self.train):
            return "no training sky to take the mean token from"
        return None

    @property
    def seeing(self) -> dict[str, Encoder]:
        """The encoders that look: `model` and `random`."""
        assert self.encoders is not None
        model, random = self.encoders
        return {"model": model, "random": random}

    @cached_property
    def with_blank(self) -> dict[str, Encoder]:
        """`model`, `random`, and `blank`, the model shown noise."""
        return {**self.seeing, "blank": Blank(self.seeing["model"], self.settings.seed)}

    @property
    def probed(self) -> dict[str, Encoder]:
        """The encoders on whose tokens probes are fitted."""
        return self.with_blank if self.controls else {"model": self.seeing["model"]}

    @cached_property
    def every(self) -> dict[str, Encoder]:
        """The model and all its controls, raw `pixels` among them."""
        grids = {survey: self.store.pixels_per_token(survey) for survey in self.store.surveys}
        return {**self.with_blank, "pixels": Pixels(grids)}

    @cached_property
    def catalogues(self) -> list[Catalogue]:
        """Sources of the test patches."""
        return [patch_sources(self.store, int(n)) for n in track(list(self.test), "find sources")]

    @cached_property
    def bands(self) -> dict[str, list[str]]:
        """Bands of every survey."""
        return {survey: self.store.bands(survey) for survey in self.store.surveys}

    @cached_property
    def why_no_sky(self) -> str:
        """Why the run has no sky with known answers."""
        receipt = None if self.results is None else self.results / "receipts/inject/all.json"
        reason = read_json(receipt)["skipped"] if receipt and receipt.is_file() else None
        return reason or "no sky with known answers: `jaisp inject` makes them"

    def known_sky(self, name: str) -> InjectedSky | None:
        """A sky with known answers; None when the run has none of that name."""
        return None if self.results is None else open_injected(self.results / "injected" / name)


def drawn(store: Store, split: str, most: int) -> Int[np.ndarray, " patch"]:
    """Patches of a split that two surveys cover, at most `most`, drawn evenly over the sky."""
    covered = [n for n in store.where(split) if len(store[int(n)].surveys) >= 2]
    step = -(-len(covered) // most) if covered else 1
    return np.array(covered[::step], int)


def patch_sources(store: Store, number: int) -> Catalogue:
    """Sources of one patch, detected and measured in every survey that covers it."""
    patch = store[number]
    views = {survey: patch[survey] for survey in patch.surveys}
    return find_sources(views, {s: store.noise_correlation(patch.cell, s) for s in views})
