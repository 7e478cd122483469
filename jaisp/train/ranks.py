"""The processes of one training: torchrun's ranks, and sums over all of them.

Without torchrun there is one, every sum is what went into it, and nothing is sent anywhere.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jaisp.errors import LostProcessError, UserError


@contextmanager
def all_ranks() -> Iterator[None]:
    """Join the processes that torchrun or Slurm started; NCCL between GPUs, Gloo between CPUs.

    After an error nobody is waited for: the process ends, and who started it ends the others.
    Raises LostProcessError where it was one of them that died.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        # Slurm may show each process its own GPU alone.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
        yield
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        raise LostProcessError(
            f"train: another of the {os.environ['WORLD_SIZE']} processes is gone; "
            "the same command goes on from the last checkpoint"
        ) from error
    dist.destroy_process_group()


def _is_of_others(error: RuntimeError) -> bool:
    """Whether a message could not be exchanged; Gloo has no class of its own for that."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def on_any(told: bool) -> bool:
    """Whether it is so on any of the ranks: the same answer on all of them."""
    if ranks() == 1:
        return told
    found = torch.tensor([int(told)])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found.item())


def wait() -> None:
    """Wait until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def own_part(count: int, key: str) -> slice:
    """This rank's part of `count` things: parts follow one another and differ by one at most.

    key: of the config, that `count` comes from.
    """
    if count < ranks():
        raise UserError(
            f"{key}: {count} a step can't be shared among {ranks()} processes; "
            "give more, or start fewer"
        )
    edges = [count * k // ranks() for k in (rank(), rank() + 1)]
    return slice(*edges)


def summed(*tensors: Tensor) -> list[Tensor]:
    """Each tensor summed over all ranks, in one message.

    Gradients go through: what a rank gets back is the gradient of the sum of all ranks' losses.
    Where all ranks compute one and the same loss of such sums, that is W times its gradient, and
    averaging parameters' gradients over W ranks (`average_gradients`, or torch's
    DistributedDataParallel) gives the gradient that one process would have.
    """
    if ranks() == 1:
        return list(tensors)
    together = _Sum.apply(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = together.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class _Sum(torch.autograd.Function):
    """all_reduce, which by itself has no gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


@torch.no_grad()
def gathered(values: Tensor) -> list[Tensor]:
    """The 1-d tensors of all ranks, in their order; lengths may differ."""
    if ranks() == 1:
        return [values]
    lengths = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(ranks())]
    dist.all_gather(lengths, torch.tensor([len(values)], device=values.device))
    longest = max(int(length) for length in lengths)
    padded = torch.cat([values, values.new_zeros(longest - len(values))])
    found = [torch.empty_like(padded) for _ in range(ranks())]
    dist.all_gather(found, padded)
    return [part[: int(length)] for part, length in zip(found, lengths, strict=True)]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all ranks, in one message.

    All ranks must have gradients of the same parameters: a step's pairs are of the same surveys
    on all of them.
    """
    if ranks() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= ranks()
    parts = together.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))
