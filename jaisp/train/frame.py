"""The linear frame of the shared tokens, fitted on training pairs: a fixed part of the model."""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor

from jaisp.model import Model
from jaisp.train.objective import covariance_matrices, shares
from jaisp.train.pairs import Pairs
from jaisp.train.ranks import summed
from jaisp.train.tokens import encode, pick

FIRST = 2**40  # of its batches, beyond any step's number
FEWEST, PER_DIMENSION = 96, 2  # views that it is fitted on
ENOUGH = 28  # tokens across a view: of larger ones, fewer do
SHRINK = 1e-3  # of the mean variance, added to all
LEAST = 0.05  # correlation that a direction counts for, at least: none is lost


@torch.no_grad()
def fit_frame(model: Model, pairs: Pairs) -> None:
    """Give the shared space the frame in which tokens are compared (`canonical_frame`).

    The objective leaves the linear frame of the tokens free, and distances need one. It is fitted
    on pairs of two surveys, where there are any, in all bands, and is the same for all surveys and
    on all ranks. The last dimensions, which are as they were measured, have one of their own, and
    stay so. Empty sky counts for next to nothing: a pair's weight is the square of the loss's.
    """
    plain = _plain(pairs)
    firsts, seconds, weights = [], [], []
    views = max(FEWEST, PER_DIMENSION * model.config.dimensions)
    smaller = min(1, (ENOUGH / pairs.crop) ** 2)
    batches = math.ceil(views * smaller / pairs.settings.batch)
    for number in range(FIRST, FIRST + batches):
        batch = plain.show(plain.draw(number), model.device)
        firsts.append(pick(encode(model, batch.first), batch.first_place))
        seconds.append(pick(encode(model, batch.second), batch.second_place))
        weights.append(batch.weight.to(model.device).square())
    first, second, weight = (torch.cat(part) for part in (firsts, seconds, weights))
    centre, frame, _ = canonical_frame(first, second, weight, model.trunk.kept)
    model.get_buffer("centre").copy_(centre)
    model.get_buffer("frame").copy_(frame)


def canonical_frame(
    first: Float[Tensor, "token dimension"],
    second: Float[Tensor, "token dimension"],
    weight: Float[Tensor, " token"],
    last: int = 0,
) -> tuple[
    Float[Tensor, " dimension"], Float[Tensor, "dimension dimension"], Float[Tensor, " dimension"]
]:
    """The centre of two views' tokens; the map from there to canonical variates, one for both
    views, each as wide as the views agree on it; and the correlations.

    With C the mean of both views' covariance and S what they share of it, (S + Sᵀ) / 2 of their
    cross-covariance, the variates are the directions of C^{-1/2} S C^{-1/2}, and its eigenvalues ρ
    the correlations (Hotelling 1936), which come in falling order. A variate's standard deviation
    is its ρ: it counts for what two views of one place agree on, and for no more where sources
    happen to differ much. last: so many dimensions are mapped by themselves, to the last variates.
    """
    share = shares(weight)
    (centre,) = summed(share @ (first + second) / 2)
    found = covariance_matrices((first, second, first - second), share)
    of_first, of_second, apart = (matrix.double() for matrix in found)
    total, edge = (of_first + of_second) / 2, len(centre) - last
    blocks = [slice(0, edge), slice(edge, None)] if last else [slice(None)]
    variates, rhos = zip(*(_variates(total[b, b], apart[b, b]) for b in blocks), strict=True)
    return centre, torch.block_diag(*variates).to(first.dtype), torch.cat(rhos)


def _variates(total: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that map tokens of the mean covariance `total`, whose differences have that of `apart`,
    to canonical variates as wide as they correlate; and the correlations."""
    values, vectors = torch.linalg.eigh(total)
    values = values.clamp(min=0) + SHRINK * values.mean()
    white = (vectors * values.rsqrt()) @ vectors.T
    # cov(x − y) is both covariances less twice what they share.
    rho, variates = torch.linalg.eigh(white @ (total - apart / 2) @ white)
    rho, variates = rho.flip(0).clamp(LEAST, 1), variates.flip(1)
    return rho[:, None] * variates.T @ white, rho


def _plain(pairs: Pairs) -> Pairs:
    """Pairs as they are compared: of surveys, where there are any, and nothing left out."""
    plain = copy.copy(pairs)
    plain.settings = pairs.settings.model_copy(update={"band_dropout": 0.0})
    if "surveys" in pairs.shares:
        plain.shares = {"surveys": 1.0}
    return plain
