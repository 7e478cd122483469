"""A few small perceptrons trained side by side: their mean is the answer."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import gelu

from jaisp.evaluate.folds import folds

MEMBERS = 4  # from different weights
HIDDEN = 128
HELD_OUT = 0.15  # of the sources, to stop the training
SMALLEST_BATCH, LARGEST_BATCH = 32, 256
STEPS, EPOCHS = 400, 20  # at least so many steps, and so many times over the sources
CHECKS, PATIENCE = 20, 7  # of the sources left out, and how many without a better answer
LEARNING_RATE, WEIGHT_DECAY = 8e-3, 1e-2
BETAS, EPSILON = (0.9, 0.999), 1e-8


def fit_perceptrons(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None,
) -> Callable[[np.ndarray], np.ndarray]:
    """One hidden layer, as it was when sources left out were predicted best."""
    out = left_out(len(x), seed, groups)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        network = _Perceptrons(x.shape[1], y.shape[1])
        _train(network, torch.from_numpy(x).float(), torch.from_numpy(y).float(), out)

    def apply(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = network(torch.from_numpy(features).float().expand(MEMBERS, -1, -1))
            return found.mean(dim=0).numpy().astype(np.float64)

    return apply


def left_out(
    count: int, seed: int, groups: Shaped[np.ndarray, " source"] | None
) -> Bool[np.ndarray, " source"]:
    """The sources that stop the training of perceptrons."""
    return folds(count, round(1 / HELD_OUT), seed, groups) == 0


class _Perceptrons:
    """[member, source, feature] to [member, source, target]: each member its own weights.

    weights, slopes: all of them one after another, and their slopes; `of_weights`, `of_slopes` are
    the same numbers as matrices: into the hidden layer, its bias, out of it, and the shift.
    """

    def __init__(self, features: int, targets: int) -> None:
        shapes = (features, HIDDEN), (1, HIDDEN), (HIDDEN, targets), (1, targets)
        sizes = [MEMBERS * rows * columns for rows, columns in shapes]
        self.weights, self.slopes = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
        self.of_weights, self.of_slopes = (
            [
                part.view(MEMBERS, *shape)
                for part, shape in zip(own.split(sizes), shapes, strict=True)
            ]
            for own in (self.weights, self.slopes)
        )
        into, bias, out, _ = self.of_weights
        into.uniform_(-(features**-0.5), features**-0.5)
        bias.uniform_(-(features**-0.5), features**-0.5)
        out.uniform_(-(HIDDEN**-0.5), HIDDEN**-0.5)

    def __call__(self, x: Tensor) -> Tensor:
        """Targets of each member's sources."""
        into, bias, out, shift = self.of_weights
        return torch.baddbmm(shift, gelu(torch.baddbmm(bias, x, into)), out)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Set the slopes of the mean square error over the targets that are known.

        Each member's as if it were alone. Written out: autograd takes as long again.
        """
        into, bias, out, shift = self.of_weights
        to_into, to_bias, to_out, to_shift = self.of_slopes
        before = torch.baddbmm(bias, x, into)
        hidden = gelu(before)
        known = torch.isfinite(y)
        error = torch.where(known, torch.baddbmm(shift, hidden, out) - torch.nan_to_num(y), 0.0)
        error *= 2 * MEMBERS / known.sum().clamp(min=1)
        torch.bmm(hidden.transpose(1, 2), error, out=to_out)
        torch.sum(error, dim=1, keepdim=True, out=to_shift)
        bent = torch.ops.aten.gelu_backward(torch.bmm(error, out.transpose(1, 2)), before)
        torch.bmm(x.transpose(1, 2), bent, out=to_into)
        torch.sum(bent, dim=1, keepdim=True, out=to_bias)


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, ICLR): of numbers as few as
    these, torch.optim takes longer to import than to use."""

    def __init__(self, weights: Tensor) -> None:
        self._weights, self._taken = weights, 0
        self._mean, self._square = torch.zeros_like(weights), torch.zeros_like(weights)

    def step(self, slopes: Tensor, rate: float) -> None:
        """Change the weights along the slopes."""
        self._taken += 1
        first, second = BETAS
        self._mean.lerp_(slopes, 1 - first)
        self._square.mul_(second).addcmul_(slopes, slopes, value=1 - second)
        spread = self._square.sqrt().div_((1 - second**self._taken) ** 0.5).add_(EPSILON)
        self._weights.mul_(1 - rate * WEIGHT_DECAY)
        self._weights.addcdiv_(self._mean, spread, value=-rate / (1 - first**self._taken))


def _train(network: _Perceptrons, x: Tensor, y: Tensor, out: Bool[np.ndarray, " source"]) -> None:
    """Let the learning rate fall along a cosine; keep the weights that predict `out` best."""
    others = torch.from_numpy(np.flatnonzero(out))
    fit = torch.from_numpy(np.flatnonzero(~out))
    optimiser = _AdamW(network.weights)
    # Few sources are shown in small batches, so that an epoch is some tens of steps.
    batch = int(np.clip(len(fit) // 20, SMALLEST_BATCH, LARGEST_BATCH))
    steps = max(STEPS, EPOCHS * len(fit) // batch)
    seen, answers = x[others].expand(MEMBERS, -1, -1), y[others]
    best, since, kept = np.inf, 0, network.weights.clone()
    for step in range(steps):
        drawn = fit[torch.randint(len(fit), (MEMBERS, batch))]
        network.learn(x[drawn], y[drawn])
        optimiser.step(network.slopes, LEARNING_RATE * (1 + np.cos(np.pi * step / steps)) / 2)
        if (step + 1) % (steps // CHECKS) == 0:
            error = float(_loss(network(seen).mean(dim=0), answers))
            since += 1
            if error < best:
                best, since, kept = error, 0, network.weights.clone()
            if since >= PATIENCE:
                break
    network.weights.copy_(kept)


def _loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean square over the targets that are known."""
    known = torch.isfinite(truth)
    error = torch.where(known, predicted - torch.nan_to_num(truth), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)
