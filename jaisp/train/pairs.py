"""Which pairs a step is made of."""

import logging
from itertools import combinations

import numpy as np
import torch

from jaisp.config.train import TrainConfig
from jaisp.errors import UserError
from jaisp.train.patches import Patches, token_weight
from jaisp.train.views import Batch, draw_views

log = logging.getLogger(__name__)

FEWEST_TOKENS = 4


class Pairs:
    """Draws the batch of any step: from the seed and the step's number alone, so that a resumed
    run sees what an uninterrupted one does.

    `interest[kind][surveys][number]` is the weight of each token of each patch that a kind of
    pair can be made of.
    """

    def __init__(self, patches: Patches, settings: TrainConfig) -> None:
        self.patches, self.settings = patches, settings
        self.interest = _interest(patches, settings.sky_weight)
        self.shares = _possible_shares(settings, self.interest)
        if patches.tokens < FEWEST_TOKENS:
            raise UserError(
                f"patch.arcsec: a patch has {patches.tokens} tokens a side; training needs "
                f"{FEWEST_TOKENS} or more, so give a larger patch or a smaller model.token_arcsec"
            )
        # Room for crops to lie apart, and for a grid displaced by part of a token.
        self.crop = min(settings.crop_tokens, patches.tokens - 2)

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
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
            sky_weight=self.settings.sky_weight,
            interest=interest,
        )


Interest = dict[tuple[str, str], dict[int, np.ndarray]]


def _interest(patches: Patches, sky_weight: float) -> dict[str, Interest]:
    """Token weights by kind, surveys and patch; what can't be paired is not there."""

    def weigh(surveys: tuple[str, str], bands: int) -> dict[int, np.ndarray]:
        first, second = (patches.snr[survey] for survey in surveys)
        weights = {
            number: token_weight(
                torch.from_numpy(first[number]), torch.from_numpy(second[number]), sky_weight
            ).numpy()
            for number in patches.shared(surveys)
            if all(patches.present[survey][number].sum() >= bands for survey in surveys)
        }
        return {number: weight for number, weight in weights.items() if weight.any()}

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
