"""The objective that a config asks for, and the weights of its terms."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from jaisp.config.train import TrainConfig
from jaisp.train.objective import Terms, information, random_blocks, vicreg
from jaisp.train.sigreg import sigreg


def find_terms(
    settings: TrainConfig,
    step: int,
    first: Float[Tensor, "token dimension"],
    second: Float[Tensor, "token dimension"],
    weight: Float[Tensor, " token"],
    targets: Sequence[Tensor] | None = None,
    groups: Sequence[int] | None = None,
    across: bool = False,
) -> Terms:
    """The terms of `train.objective` over the pairs of a step, of all ranks, which may consist of
    groups of these sizes.

    across: the pairs are of two surveys, which need not agree on `train.own_dimensions`.
    """
    seed = (settings.seed << 32) + step
    if settings.objective == "information":
        blocks = random_blocks(first.shape[1], settings.block, seed)
        agreeing = first.shape[1] - settings.own_dimensions if across else None
        return information(first, second, weight, targets, blocks, agreeing)
    if settings.objective == "vicreg":
        return vicreg(first, second, weight, targets)
    test = settings.sigreg
    return sigreg(
        first,
        second,
        weight,
        targets,
        slices=test.slices,
        tokens=test.tokens,
        seed=seed,
        groups=groups,
    )


def term_weights(settings: TrainConfig) -> dict[str, float]:
    """What each term counts in the loss."""
    if settings.objective == "information":
        return {"alignment": 1.0, "variance": 1.0, "covariance": 1.0}
    if settings.objective == "vicreg":
        return settings.vicreg.model_dump()
    weight = settings.sigreg.weight
    return {"alignment": 1 - weight, "normality": weight}
