"""Which pairs a step is made of."""

import logging
from itertools import combinations

import numpy as np

from jaisp.config.train import TrainConfig
from jaisp.errors import UserError
from jaisp.train.patches import Patches, information
from jaisp.train.views import Batch, draw_views

log = logging.getLogger(__name__)


class Pairs:
    """Draws the batch of any step: from the seed and the step's number alone, so that a resumed
    run sees what an uninterrupted one does."""

    def __init__(self, patches: Patches, settings: TrainConfig) -> None:
        self.patches, self.settings = patches, settings
        self.choices = _choices(patches)
        self.shares = _possible_shares(settings, self.choices)
        self._interest: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        self.crop = min(settings.crop_tokens, patches.tokens)

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        kinds = sorted(self.shares)
        kind = kinds[rng.choice(len(kinds), p=[self.shares[k] for k in kinds])]
        surveys = self.choices[kind][rng.integers(len(self.choices[kind]))]
        interest = self.interest(surveys)
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
            interest=interest,
        )

    def interest(self, surveys: tuple[str, str]) -> dict[int, np.ndarray]:
        """The weight of each token of each patch that both surveys cover."""
        if surveys not in self._interest:
            first, second = (self.patches.snr[survey] for survey in surveys)
            self._interest[surveys] = {
                number: information(first[number], second[number], self.settings.sky_weight)
                for number in self.patches.shared(surveys)
            }
        return self._interest[surveys]


def _choices(patches: Patches) -> dict[str, list[tuple[str, str]]]:
    """The survey pairs that each kind can be made of."""
    covered = [survey for survey in patches.surveys if patches.covered[survey]]
    several = [survey for survey in covered if len(patches.store.bands(survey)) > 1]
    return {
        "surveys": [pair for pair in combinations(covered, 2) if patches.shared(pair)],
        "bands": [(survey, survey) for survey in several],
        "degraded": [(survey, survey) for survey in covered],
    }


def _possible_shares(
    settings: TrainConfig, choices: dict[str, list[tuple[str, str]]]
) -> dict[str, float]:
    """The shares of the kinds that exist, of sum one."""
    wanted = {kind: share for kind, share in settings.pairs.model_dump().items() if share > 0}
    possible = {kind: share for kind, share in wanted.items() if choices[kind]}
    for kind in wanted.keys() - possible.keys():
        log.warning("train.pairs.%s: no pair of this kind in these surveys; left out", kind)
    if not possible:
        raise UserError("train.pairs: the surveys of this run make no pair of the kinds asked for")
    total = sum(possible.values())
    return {kind: share / total for kind, share in possible.items()}
