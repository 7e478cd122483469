"""Which pairs a step is made of."""

import logging
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import DataLoader, Dataset

from jaisp.config.train import TrainConfig
from jaisp.errors import UserError
from jaisp.store.batches import worker_options
from jaisp.train.ahead import ahead
from jaisp.train.patches import Patches
from jaisp.train.ranks import own_part
from jaisp.train.views import Batch, Draw, draw_views, show_views
from jaisp.train.weight import token_weight

log = logging.getLogger(__name__)

FEWEST_TOKENS = 4


class Pairs(Dataset[Draw]):
    """Draws the batch of any step: from the seed and the step's number alone, so that a resumed
    run sees what an uninterrupted one does, and one with workers what one without does. Of several
    ranks each draws its own part of that batch.

    `interest[kind][surveys][number]` is the chance of each token of each patch that a kind of
    pair can be made of, of any sum.
    """

    def __init__(self, patches: Patches, settings: TrainConfig) -> None:
        self.patches, self.settings = patches, settings
        self.part = own_part(settings.batch, "train.batch")
        self.interest = _interest(patches, settings)
        self.shares = _possible_shares(settings, self.interest)
        if patches.tokens < FEWEST_TOKENS:
            raise UserError(
                f"patch.arcsec: a patch has {patches.tokens} tokens a side; training needs "
                f"{FEWEST_TOKENS} or more, so give a larger patch or a smaller model.token_arcsec"
            )
        # Room for crops to lie apart, and for a grid displaced by part of a token.
        self.crop = min(settings.crop_tokens, patches.tokens - 2)

    def __getitem__(self, step: int) -> Draw:
        return self.draw(step)

    def draws(self, steps: range) -> Iterator[Draw]:
        """The draws of some steps, ahead of time: by workers, where patches have to be read."""
        workers = self.settings.workers
        if not workers or self.patches.resident or not len(steps):
            return ahead(self.draw, steps)
        own = torch.Generator()  # leaves the training's random numbers alone
        options = worker_options(workers) | {"persistent_workers": False}
        return iter(DataLoader(self, batch_size=None, sampler=steps, generator=own, **options))

    def show(self, draw: Draw, device: torch.device) -> Batch:
        """What networks are given of a draw, decoded on the device."""
        settings = self.settings
        return show_views(draw, self.patches, settings.sky_weight, settings.wing_weight, device)

    def draw(self, step: int) -> Draw:
        """What a step is made of, still coded."""
        rng = np.random.default_rng([self.settings.seed, step])
        kinds = sorted(self.shares)
        kind = kinds[rng.choice(len(kinds), p=[self.shares[k] for k in kinds])]
        choices = sorted(self.interest[kind])
        surveys = choices[rng.integers(len(choices))]
        interest = self.interest[kind][surveys]
        known = sorted(interest)
        chances = np.array([interest[number].sum() for number in known], np.float64)
        numbers = rng.choice(
            known,
            size=self.settings.batch,
            replace=len(known) < self.settings.batch,
            p=chances / chances.sum(),
        )
        # Which side is first tells nothing.
        ordered = surveys if rng.random() < 0.5 else surveys[::-1]
        return draw_views(
            self.patches,
            numbers.tolist(),
            kind,
            ordered,
            rng,
            crop=self.crop,
            shift=min(self.settings.shift_tokens, self.crop - 1),
            dropout=self.settings.band_dropout,
            dither=self.settings.dither,
            interest=interest,
            part=self.part,
        )


Interest = dict[tuple[str, str], dict[int, np.ndarray]]


def _interest(patches: Patches, settings: TrainConfig) -> dict[str, Interest]:
    """Chances of tokens by kind, surveys and patch; what can't be paired is not there."""

    def weigh(surveys: tuple[str, str], bands: int) -> dict[int, np.ndarray]:
        chances = {
            number: _chances(patches, surveys, number, settings)
            for number in patches.shared(surveys)
            if all(patches.present[survey][number].sum() >= bands for survey in surveys)
        }
        return {number: chance for number, chance in chances.items() if chance.any()}

    own = [(survey, survey) for survey in patches.surveys]
    found = {
        "surveys": {pair: weigh(pair, 1) for pair in combinations(patches.surveys, 2)},
        "bands": {pair: weigh(pair, 2) for pair in own},
        "degraded": {pair: weigh(pair, 1) for pair in own},
    }
    return {
        kind: {pair: weights for pair, weights in by_pair.items() if weights}
        for kind, by_pair in found.items()
    }


def _chances(
    patches: Patches, surveys: tuple[str, str], number: int, settings: TrainConfig
) -> Float32[np.ndarray, "row column"]:
    """How often crops go around each token of a patch, as `train.sampling` says."""
    first, second = (torch.from_numpy(patches.snr[survey][number]) for survey in surveys)
    weight = token_weight(first, second, settings.sky_weight).numpy()
    if settings.sampling == "signal":
        return weight
    seen = (weight > 0).astype(np.float32)
    if settings.sampling == "uniform":
        return seen
    # A source that both surveys detect is one source.
    sources = np.maximum(*(patches.sources[survey][number] for survey in surveys))
    return seen * (settings.sky_weight + sources.astype(np.float32))


def _possible_shares(settings: TrainConfig, interest: dict[str, Interest]) -> dict[str, float]:
    """The shares of the kinds that exist, of sum one."""
    wanted = {kind: share for kind, share in settings.pairs.model_dump().items() if share > 0}
    possible = {kind: share for kind, share in wanted.items() if interest[kind]}
    for kind in wanted.keys() - possible.keys():
        log.warning("train.pairs.%s: no pair of this kind in these surveys; left out", kind)
    if not possible:
        raise UserError("train.pairs: the surveys of this run make no pair of the kinds asked for")
    total = sum(possible.values())
    return {kind: share / total for kind, share in possible.items()}
