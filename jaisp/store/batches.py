"""Batches of matched views: loaded by worker processes or ahead of time, decoded on the device."""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
)

from jaisp.store.codes import decode_flux, decode_noise
from jaisp.store.dataset import Batch, MatchedViews, Samples

# Batches that are read while one is in use.
AHEAD = 2


def load_batches(
    dataset: MatchedViews,
    batch: int,
    *,
    shuffle: bool = False,
    sampler: Sampler[int] | None = None,
    workers: int = 0,
    drop_last: bool = False,
) -> "DataLoader | Ahead":
    """What to iterate over for the batches of an epoch, still coded.

    Without workers the next batches are read in tensorstore's threads while one is in use.
    `workers` are processes started by forkserver, one thread each, which stay from epoch to
    epoch; patches kept in memory need none, and then none is started.
    """
    if sampler is None:
        sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(sampler, batch, drop_last)
    if workers == 0 or dataset.resident:
        return Ahead(dataset, batches)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, **worker_options(workers))


def worker_options(workers: int) -> dict[str, Any]:
    """Options of torch's DataLoader for processes that read a store: never forked ones, which
    tensorstore does not survive."""
    return {
        "num_workers": workers,
        "multiprocessing_context": "forkserver",
        "worker_init_fn": one_thread,
        "persistent_workers": True,
        "prefetch_factor": AHEAD,
    }


def one_thread(_: int) -> None:
    """Leave a worker one thread: there are as many workers as there are cores to use.

    tensorstore's threads are held by `jaisp.store.reader.reading_context`.
    """
    torch.set_num_threads(1)
    zarr.config.set({"threading.max_workers": 1})
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    if "numba" in sys.modules:
        sys.modules["numba"].set_num_threads(1)


def collate(samples: Sequence[Batch]) -> Batch:
    """Samples to a batch. What was read as one batch is not copied."""
    if isinstance(samples, Samples) and samples.batch is not None:
        return samples.batch
    return default_collate(list(samples))


class Ahead:
    """Batches in this process, the next ones being read while one is in use."""

    def __init__(self, dataset: MatchedViews, batches: BatchSampler) -> None:
        self.dataset, self.batches = dataset, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.dataset.resident:
            for places in self.batches:
                yield collate(self.dataset.__getitems__(places))
            return
        under_way: deque = deque()
        for places in self.batches:
            under_way.append(self.dataset.begin(places))
            if len(under_way) > AHEAD:
                yield under_way.popleft().batch()
        while under_way:
            yield under_way.popleft().batch()


def decode(batch: Batch, device: torch.device | str = "cpu") -> Batch:
    """The batch on a device, decoded: `flux` and `noise` in nJy, float32, NaN where missing.

    Small integers travel, and a table on the device gives the numbers that `View` gives. Codes
    in `batch` are left as they are; `mask` is carried over.
    """
    device = torch.device(device)
    views = {}
    for survey, tensors in batch["views"].items():
        codes = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        views[survey] = {name: codes[name] for name in codes if name == "mask"}
        if "flux" in codes:
            views[survey]["flux"] = (
                codes["flux"]
                if codes["flux"].dtype == torch.float32
                else decode_plane(codes["flux"], codes["scale"])
            )
        if "noise" in codes:
            views[survey]["noise"] = decode_plane(codes["noise"], codes["noise_scale"])
    return {**batch, "views": views}


def decode_plane(
    codes: Shaped[Tensor, "*stack y x"], scale: Float[Tensor, "*stack"]
) -> Float[Tensor, "*stack y x"]:
    """int16 flux or uint8 noise codes -> float32 in the unit of `scale`, on their device."""
    table = _table(codes.dtype, codes.device)
    if codes.device.type == "cpu":
        # A plane at a time, for numpy makes indices of eight bytes of the codes, and those of
        # one plane stay in the cache: a third of torch's time.
        flux = torch.empty(codes.shape, dtype=torch.float32)
        pixels = codes.contiguous().numpy().view(_UNSIGNED[codes.dtype])
        planes = (-1, *codes.shape[-2:])
        for into, plane in zip(flux.numpy().reshape(planes), pixels.reshape(planes), strict=True):
            np.take(table.numpy(), plane, out=into, mode="clip")
    else:
        places = codes.flatten().int() & (len(table) - 1)
        flux = table.index_select(0, places).view(codes.shape)
    return flux.mul_(scale[..., None, None])


_UNSIGNED = {torch.int16: np.uint16, torch.uint8: np.uint8}


@cache
def _table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What every code stands for, in the order of the codes' unsigned bits."""
    one = np.ones((), np.float32)
    if dtype == torch.int16:
        codes = np.arange(65536, dtype=np.uint16).view(np.int16).reshape(256, 256)
        values = decode_flux(codes, one)
    else:
        values = decode_noise(np.arange(256, dtype=np.uint8).reshape(16, 16), one)
    return torch.from_numpy(values.ravel()).to(device)
