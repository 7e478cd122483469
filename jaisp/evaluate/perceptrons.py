"""A few small perceptrons trained side by side: their mean is the answer."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from jaisp.evaluate.folds import folds

MEMBERS = 4  # from different weights
HIDDEN = 128
HELD_OUT = 0.15  # of the sources, to stop the training
SMALLEST_BATCH, LARGEST_BATCH = 32, 256
STEPS, EPOCHS = 400, 20  # at least so many steps, and so many times over the sources
CHECKS, PATIENCE = 20, 7  # of the sources left out, and how many without a better answer
LEARNING_RATE, WEIGHT_DECAY = 8e-3, 1e-2


def fit_perceptrons(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None,
) -> Callable[[np.ndarray], np.ndarray]:
    """One hidden layer, as it was when sources left out were predicted best."""
    out = left_out(len(x), seed, groups)
    with torch.random.fork_rng(devices=[]):
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


class _Perceptrons(nn.Module):
    """[member, source, feature] to [member, source, target]: each member its own weights."""

    def __init__(self, features: int, targets: int) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.empty(MEMBERS, features, HIDDEN))
        self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, HIDDEN))
        self.out = nn.Parameter(torch.empty(MEMBERS, HIDDEN, targets))
        self.shift = nn.Parameter(torch.zeros(MEMBERS, 1, targets))
        nn.init.uniform_(self.into, -(features**-0.5), features**-0.5)
        nn.init.uniform_(self.bias, -(features**-0.5), features**-0.5)
        nn.init.uniform_(self.out, -(HIDDEN**-0.5), HIDDEN**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Targets of each member's sources."""
        hidden = nn.functional.gelu(torch.baddbmm(self.bias, x, self.into))
        return torch.baddbmm(self.shift, hidden, self.out)


def _train(network: _Perceptrons, x: Tensor, y: Tensor, out: Bool[np.ndarray, " source"]) -> None:
    """Let the learning rate fall along a cosine; keep the weights that predict `out` best."""
    others = torch.from_numpy(np.flatnonzero(out))
    fit = torch.from_numpy(np.flatnonzero(~out))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    # Few sources are shown in small batches, so that an epoch is some tens of steps.
    batch = int(np.clip(len(fit) // 20, SMALLEST_BATCH, LARGEST_BATCH))
    steps = max(STEPS, EPOCHS * len(fit) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    seen, answers = x[others].expand(MEMBERS, -1, -1), y[others]
    best, since, kept = np.inf, 0, network.state_dict()
    for step in range(steps):
        drawn = fit[torch.randint(len(fit), (MEMBERS, batch))]
        optimiser.zero_grad(set_to_none=True)
        # The sum over members: each is trained as if it were alone.
        (MEMBERS * _loss(network(x[drawn]), y[drawn])).backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % (steps // CHECKS) == 0:
            with torch.no_grad():
                error = float(_loss(network(seen).mean(dim=0), answers))
            since += 1
            if error < best:
                best, since = error, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            if since >= PATIENCE:
                break
    network.load_state_dict(kept)


def _loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean square over the targets that are known."""
    known = torch.isfinite(truth)
    error = torch.where(known, predicted - torch.nan_to_num(truth), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)
