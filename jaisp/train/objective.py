"""Alignment, variance and covariance of weighted pairs of tokens, in two forms.

docs/objective.md has the formulas, their sources and why `information` is the default. Tokens are
those of all ranks: one process, and many with a part of them each, find the same (`summed`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from jaisp.train.ranks import summed

EPSILON = 1e-4  # VICReg's, under the square root
FLOOR = 0.01  # variance below which a direction tells nothing, of the mean variance
HOLD = 0.01  # how firmly the mean variance is held at one

Tokens = Float[Tensor, "token dimension"]


@dataclass(frozen=True)
class Terms:
    """An objective's terms before weighting, each a scalar: alignment, and variance and covariance
    or, in their place, `normality`."""

    alignment: Tensor
    variance: Tensor | None = None
    covariance: Tensor | None = None
    normality: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """The terms that this objective has, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: term for name, term in found.items() if term is not None}


def information(
    first: Float[Tensor, "token dimension"],
    second: Float[Tensor, "token dimension"],
    weight: Float[Tensor, " token"],
    targets: Sequence[Tensor] | None = None,
    blocks: Sequence[Tensor] | None = None,
    agreeing: int | None = None,
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

    blocks: dimensions that are taken together, each in one block; default all of them. With
    several, log det is the sum of the blocks' own (see `random_blocks`).
    agreeing: how many dimensions, the first ones, alignment is asked of; default all of them.
    """
    first, second, weight = first.float(), second.float(), weight.float()
    share = shares(weight)
    own, other = covariance_matrices((first, second), share)
    spread = (own + other) / 2
    scale = spread.diagonal().mean()
    floor = FLOOR * torch.eye(len(spread), device=spread.device)
    level = spread / scale + floor
    pairs = aligned(first, second, targets)
    squares = summed(*(_mean_square(x - y, share) for x, y in pairs))
    asked = _among(blocks, agreeing, len(spread))
    apart = [_log_det(square / (2 * scale) + floor, asked) for square in squares]
    single = level.diagonal().log().sum()
    dimensions = len(spread)
    return Terms(
        alignment=torch.stack(apart).mean() / dimensions,
        variance=-single / dimensions + HOLD * scale.log().square(),
        covariance=(single - _log_det(level, blocks)) / dimensions,
    )


def _log_det(matrix: Tensor, blocks: Sequence[Tensor] | None) -> Tensor:
    if blocks is None:
        return torch.logdet(matrix)
    return torch.stack([torch.logdet(matrix[block][:, block]) for block in blocks]).sum()


def _among(
    blocks: Sequence[Tensor] | None, agreeing: int | None, dimensions: int
) -> Sequence[Tensor] | None:
    """What blocks have of the first dimensions."""
    if agreeing is None or agreeing >= dimensions:
        return blocks
    parts = [torch.arange(dimensions)] if blocks is None else blocks
    return [part[part < agreeing] for part in parts if (part < agreeing).any()]


def random_blocks(dimensions: int, block: int, seed: int) -> list[Tensor]:
    """Dimensions in random blocks of at most `block`, as even as can be.

    A covariance of D dimensions takes several D independent tokens. A step that has fewer can
    still tell of blocks of dimensions, other ones every time: a composite likelihood (Varin, Reid,
    Firth 2011) in place of the whole one.
    """
    order = torch.randperm(dimensions, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(-(-dimensions // block)))


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
    share = shares(weight)
    spreads = covariance_matrices((first, second), share)
    pairs = aligned(first, second, targets)
    apart = [square.mean() for square in summed(*(share @ (x - y).square() for x, y in pairs))]
    variance = [relu(1 - (c.diagonal() + EPSILON).sqrt()).mean() for c in spreads]
    covariance = [(c.square().sum() - c.diagonal().square().sum()) / len(c) for c in spreads]
    return Terms(*(torch.stack(term).mean() for term in (apart, variance, covariance)))


def shares(weight: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Weights that sum to one over all ranks."""
    (total,) = summed(weight.sum())
    return weight / total


def covariance_matrices(
    views: Sequence[Float[Tensor, "token dimension"]], share: Float[Tensor, " token"]
) -> list[Float[Tensor, "dimension dimension"]]:
    """Unbiased weighted covariance of each view over all ranks; `share` are weights that sum to
    one over all of them.

    Σ w (x − x̄)(x − x̄)ᵀ / (1 − Σ w²): 1 / (N − 1) when weights are equal. Means first, then
    squares about them: Σ w x xᵀ − x̄ x̄ᵀ would lose digits where the mean is large.
    """
    *means, squares = summed(*(share @ tokens for tokens in views), share.square().sum())
    centred = [tokens - mean for tokens, mean in zip(views, means, strict=True)]
    found = summed(*((tokens * share[:, None]).T @ tokens for tokens in centred))
    return [square / (1 - squares) for square in found]


def covariance_matrix(
    tokens: Float[Tensor, "token dimension"], share: Float[Tensor, " token"]
) -> Float[Tensor, "dimension dimension"]:
    """`covariance_matrices` of one view."""
    return covariance_matrices([tokens], share)[0]


def _mean_square(tokens: Tensor, share: Tensor) -> Tensor:
    """Σ w x xᵀ: covariance and mean together, so that views may not differ by a constant."""
    return (tokens * share[:, None]).T @ tokens


def aligned(
    first: Tensor, second: Tensor, targets: Sequence[Tensor] | None
) -> list[tuple[Tensor, Tensor]]:
    """What is to agree: the two views, or each with the teacher's tokens of the other."""
    if targets is None:
        return [(first, second)]
    of_first, of_second = targets
    return [(first, of_second), (second, of_first)]
