"""Tokens of a step that are to agree: of two views, and of sources added to two surveys."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jaisp.train.implants import Implanted
from jaisp.train.position import around
from jaisp.train.weight import token_weight


class Sources(NamedTuple):
    """Implants of one survey, the tokens around each, and a teacher's."""

    implanted: Implanted
    tokens: Float[Tensor, "source place dimension"]
    target: Float[Tensor, "source place dimension"] | None


class Matching(NamedTuple):
    """Pairs of tokens, their weights, and what a teacher makes of each side.

    groups: how many are of views, and then of sources, where there are any.
    """

    first: Float[Tensor, "token dimension"]
    second: Float[Tensor, "token dimension"]
    weight: Float[Tensor, " token"]
    targets: list[Tensor] | None
    groups: tuple[int, ...]

    def with_sources(
        self, surveys: tuple[str, str], sources: Mapping[str, Sources], sky_weight: float
    ) -> "Matching":
        """With the tokens around implants besides, where the pairs are of two surveys that have
        the same ones."""
        if surveys[0] == surveys[1] or not all(survey in sources for survey in surveys):
            return self
        own = [sources[survey] for survey in surveys]
        snr, others = (around(each.implanted.token_snr, each.implanted) for each in own)
        first, second = (each.tokens.flatten(0, 1) for each in own)
        targets = self.targets
        if targets is not None:
            more = [each.target for each in own if each.target is not None]
            targets = [
                torch.cat([old, new.flatten(0, 1)]) for old, new in zip(targets, more, strict=True)
            ]
        return Matching(
            torch.cat([self.first, first]),
            torch.cat([self.second, second]),
            torch.cat([self.weight, token_weight(snr, others, sky_weight).flatten()]),
            targets,
            (*self.groups, len(first)),
        )
