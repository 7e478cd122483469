"""Alignment, variance and covariance of weighted pairs of tokens, in two forms.

docs/objective.md has the formulas, their sources and why `information` is the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

EPSILON = 1e-4  # VICReg's, under the square root
FLOOR = 0.03  # variance below which a direction tells nothing, of the mean variance
HOLD = 0.01  # how firmly the mean variance is held at one

Tokens = Float[Tensor, "token dimension"]


@dataclass(frozen=True)
class Terms:
    """The three terms before weighting, each a scalar."""

    alignment: Tensor
    variance: Tensor
    covariance: Tensor


def information(
    first: Float[Tensor, "token dimension"],
    second: Float[Tensor, "token dimension"],
    weight: Float[Tensor, " token"],
    targets: Sequence[Tensor] | None = None,
) -> Terms:
    """What two views tell of one another, by log-determinants; the loss is the terms' sum.

    With C the mean of both views' covariance, s its mean variance, M = C / s + FLOOR · I, and A
    the mean square (x − y)(x − y)ᵀ / 2:

    alignment   log det(A / s + FLOOR · I) / D
    variance    −Σ_d log M_dd / D + HOLD · log² s
    covariance  −[log det M − Σ_d log M_dd] / D, never below 0 (Hadamard's inequality)

    Where the views' canonical correlations are ρ_d, the sum is the mean of log(1 − ρ_d), down to
    FLOOR: like the information that Gaussian views share, it is the same for any linear map of
    the tokens, so that no direction counts for its size. After CorInfoMax (Özsoy et al. 2022,
    arXiv:2209.07999) and canonical correlation (Hotelling 1936). `targets` are the tokens that
    first and second are aligned with instead of with each other, a teacher's: of (first, second).
    """
    first, second, weight = first.float(), second.float(), weight.float()
    share = weight / weight.sum()
    spread = (covariance_matrix(first, share) + covariance_matrix(second, share)) / 2
    scale = spread.diagonal().mean()
    floor = FLOOR * torch.eye(len(spread), device=spread.device)
    level = spread / scale + floor
    apart = [
        torch.logdet(_mean_square(x - y, share) / (2 * scale) + floor)
        for x, y in _aligned(first, second, targets)
    ]
    own = level.diagonal().log().sum()
    dimensions = len(spread)
    return Terms(
        alignment=torch.stack(apart).mean() / dimensions,
        variance=-own / dimensions + HOLD * scale.log().square(),
        covariance=(own - torch.logdet(level)) / dimensions,
    )


def vicreg(
    first: Float[Tensor, "token dimension"],
    second: Float[Tensor, "token dimension"],
    weight: Float[Tensor, " token"],
    targets: Sequence[Tensor] | None = None,
) -> Terms:
    """The terms of VICReg (Bardes, Ponce, LeCun 2022, arXiv:2105.04906) of N weighted pairs.

    alignment   Σₙ wₙ |xₙ − yₙ|² / D
    variance    ½ [mean_d relu(1 − √(var x_d + 1e-4)) + the same of y]
    covariance  ½ [Σ_{i≠j} C(x)²_ij / D + the same of y]

    Weights are first scaled to a sum of one. `targets` as for `information`.
    """
    first, second, weight = first.float(), second.float(), weight.float()
    share = weight / weight.sum()
    spreads = [covariance_matrix(x, share) for x in (first, second)]
    apart = [(share @ (x - y).square()).mean() for x, y in _aligned(first, second, targets)]
    variance = [relu(1 - (c.diagonal() + EPSILON).sqrt()).mean() for c in spreads]
    covariance = [(c.square().sum() - c.diagonal().square().sum()) / len(c) for c in spreads]
    return Terms(*(torch.stack(term).mean() for term in (apart, variance, covariance)))


def covariance_matrix(
    tokens: Float[Tensor, "token dimension"], share: Float[Tensor, " token"]
) -> Float[Tensor, "dimension dimension"]:
    """Unbiased weighted covariance; `share` are weights that sum to one.

    Σ w (x − x̄)(x − x̄)ᵀ / (1 − Σ w²): 1 / (N − 1) when weights are equal.
    """
    centred = tokens - share @ tokens
    return (centred * share[:, None]).T @ centred / (1 - share.square().sum())


def _mean_square(tokens: Tensor, share: Tensor) -> Tensor:
    """Σ w x xᵀ: covariance and mean together, so that views may not differ by a constant."""
    return (tokens * share[:, None]).T @ tokens


def _aligned(
    first: Tensor, second: Tensor, targets: Sequence[Tensor] | None
) -> list[tuple[Tensor, Tensor]]:
    if targets is None:
        return [(first, second)]
    of_first, of_second = targets
    return [(first, of_second), (second, of_first)]


OBJECTIVES = {"information": information, "vicreg": vicreg}
