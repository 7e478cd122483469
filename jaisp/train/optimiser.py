"""The optimiser, its learning rate, and the teacher that follows the model."""

import math
from typing import Any

import torch
from torch import nn

from jaisp.config.train import TrainConfig


def new_optimiser(module: nn.Module, settings: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) of all parameters; one kernel for all of them on a GPU."""
    parameters = list(module.parameters())
    on_gpu = all(parameter.is_cuda for parameter in parameters)
    return torch.optim.AdamW(
        decayed_groups(module, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        fused=True if on_gpu else None,
    )


def take_up(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a checkpoint's state, made on whatever device, and keep this device's kernels."""
    for kept, group in zip(state["param_groups"], optimiser.param_groups, strict=True):
        kept["fused"] = group["fused"]
    optimiser.load_state_dict(state)


def learning_rate(settings: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warm = settings.warmup * settings.steps
    if step <= warm:
        return settings.learning_rate * step / max(warm, 1)
    done = (step - warm) / max(settings.steps - warm, 1)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def decayed_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@torch.no_grad()
def follow(teacher: nn.Module, model: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters towards the model's; buffers are copied."""
    for average, value in zip(teacher.parameters(), model.parameters(), strict=True):
        average.lerp_(value, 1 - momentum)
    for kept, new in zip(teacher.buffers(), model.buffers(), strict=True):
        kept.copy_(new)
