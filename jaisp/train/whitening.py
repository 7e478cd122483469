"""The last linear map of a model, fitted on training pairs when training ends."""

import torch

from jaisp.model import Model
from jaisp.train.objective import covariance_matrix, shares
from jaisp.train.pairs import Pairs
from jaisp.train.ranks import summed
from jaisp.train.tokens import encode, pick

# Batches beyond any step's number.
FIRST, BATCHES = 2**40, 16
SHRINK = 0.3


@torch.no_grad()
def fit_whitening(model: Model, pairs: Pairs) -> None:
    """Scale the shared space so that what two views of one place differ by is round.

    The objective leaves the linear frame of the tokens free, and distances need one. With S the
    covariance of the differences x − y of training pairs, shrunk towards its mean eigenvalue,
    tokens become S^{-1/2} (token − mean): directions on which views agree count more (linear
    discriminant analysis with a place a class; Fisher 1936). One map for all surveys, a fixed
    part of the model from here on, and the same on all ranks.
    """
    firsts, seconds, weights = [], [], []
    for number in range(FIRST, FIRST + BATCHES):
        batch = pairs.show(pairs.draw(number), model.device)
        firsts.append(pick(encode(model, batch.first), batch.first_place))
        seconds.append(pick(encode(model, batch.second), batch.second_place))
        weights.append(batch.weight.to(model.device))
    first, second, weight = (torch.cat(part) for part in (firsts, seconds, weights))
    share = shares(weight)
    apart = covariance_matrix(first - second, share).double()
    values, vectors = torch.linalg.eigh(apart)
    values = (1 - SHRINK) * values.clamp(min=0) + SHRINK * values.mean()
    model.get_buffer("whitening").copy_((vectors * values.rsqrt()) @ vectors.T)
    (centre,) = summed(share @ (first + second) / 2)
    model.get_buffer("centre").copy_(centre)
