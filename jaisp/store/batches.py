"""Batches of matched views: loaded by worker processes or ahead of time, decoded on the device."""

import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Float32, Shaped
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from jaisp.store.codes import decode_flux, decode_noise
from jaisp.store.dataset import (
    SCALES,
    Batch,
    MatchedViews,
    Reading,
    Samples,
    Views,
    in_large_pages,
)
from jaisp.store.layout import PLANES

# Batches that are read while one is in use.
AHEAD = 2


class Batches:
    """The batches of an epoch, each time it is iterated over.

    Parameters
    ----------
    dataset: what to load, `batch` samples at a time.
    shuffle, sampler, drop_last: as torch's DataLoader has them.
    workers: processes started by forkserver, one thread each, which stay from epoch to epoch.
        Without, the next batches are read in tensorstore's threads while one is in use; patches
        that are kept in memory need none, and none is started.
    device: batches come decoded, on this device; None leaves them coded.
    """

    def __init__(
        self,
        dataset: MatchedViews,
        batch: int,
        *,
        shuffle: bool = False,
        sampler: Iterable[int] | None = None,
        drop_last: bool = False,
        workers: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        if sampler is None:
            sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        self.dataset, self.device = dataset, device
        self._places = BatchSampler(sampler, batch, drop_last)
        self._loader: DataLoader | None = None
        # What workers' batches lie in. As long as it is held here, it stays mapped.
        self._shared: dict[int, torch.UntypedStorage] = {}
        if workers and not dataset.resident:
            # A batch that is decoded is done with: those under way and the one at hand take turns.
            views = dataset if device is None else dataset.in_turn(AHEAD + 1)
            self._loader = DataLoader(
                views, batch_sampler=self._places, collate_fn=collate, **worker_options(workers)
            )

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is not None:
            return map(self._finish if self.device is None else self._take, self._loader)
        return map(self._finish, self._kept()) if self.dataset.resident else self._ahead()

    def _finish(self, batch: Batch | Samples) -> Batch:
        if self.device is not None:
            return decode(batch, self.device)
        return collate(batch) if isinstance(batch, Samples) else batch

    def _take(self, batch: Batch) -> Batch:
        """A worker's batch, decoded; its own memory is for the worker's next ones."""
        for tensors in batch["views"].values():
            for name in self.dataset.planes:
                storage = tensors[name].untyped_storage()
                self._shared[storage.data_ptr()] = storage
        return _apart(self._finish(batch), batch)

    def _kept(self) -> Iterator[Samples]:
        return (self.dataset.__getitems__(places) for places in self._places)

    def _ahead(self) -> Iterator[Batch]:
        """Batches in their order, the next ones under way."""
        under_way: deque[Reading] = deque()
        spare: list[Views] = []
        for places in chain(self._places, [None] * AHEAD):
            if places is not None:
                under_way.append(self.dataset.begin(places, spare.pop() if spare else None))
            if len(under_way) > AHEAD or (places is None and under_way):
                batch = under_way.popleft().batch()
                if self.device is None:
                    yield self._finish(batch)
                    continue
                # Nobody else has the codes: memory in use is faster than fresh memory.
                yield _apart(self._finish(batch), batch)
                spare.append(batch["views"])


def worker_options(workers: int) -> dict[str, Any]:
    """Options of torch's DataLoader for processes that read a store: never forked ones, which
    tensorstore does not survive."""
    return {
        "num_workers": workers,
        "multiprocessing_context": "forkserver",
        "worker_init_fn": begin_worker,
        "persistent_workers": True,
        "prefetch_factor": AHEAD,
    }


def begin_worker(_: int) -> None:
    """Leave a worker one thread: there are as many workers as there are cores to use.

    tensorstore's threads are held by `jaisp.store.reader.reading_context`. A signal that tells a
    training to stop may come to all of its processes: it still needs this one, and ends it itself.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
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


def decode(batch: Batch | Samples, device: torch.device | str = "cpu") -> Batch:
    """A batch on a device, decoded: `flux` and `noise` in nJy, float32, NaN where missing.

    Small integers travel, and a table on the device gives the numbers that `View` gives. Codes
    in `batch` are left as they are; `mask` is carried over. Samples whose planes are kept in
    memory need not be collated first.
    """
    if isinstance(batch, Samples) and not (_on_cpu(batch) and torch.device(device).type == "cpu"):
        batch = collate(batch)
    if isinstance(batch, Samples):
        about = default_collate([{**sample, "views": 0} for sample in batch])
        stacks = {
            survey: {name: [sample["views"][survey][name] for sample in batch] for name in tensors}
            for survey, tensors in batch[0]["views"].items()
        }
    else:
        about, stacks = batch, batch["views"]
    views: Views = {}
    for survey, planes in stacks.items():
        sent = {
            name: values.to(device) if isinstance(values, Tensor) else values
            for name, values in planes.items()
        }
        views[survey] = {
            name: decode_planes(sent[name], sent[SCALES[name]])
            if name in SCALES
            else _stack(sent[name])
            for name in PLANES
            if name in sent
        }
    return {**about, "views": views}


def decode_planes(
    codes: Tensor | Sequence[Tensor], scale: Tensor | Sequence[Tensor]
) -> Float32[Tensor, "sample band y x"]:
    """int16 flux or uint8 noise codes, a tensor a sample or one for all, in the unit of `scale`.

    Float32 is taken to be decoded. The result is on the codes' device.
    """
    if codes[0].dtype == torch.float32:
        return _stack(codes)
    table = _table(codes[0].dtype, codes[0].device)
    if codes[0].device.type != "cpu":
        return look_up(_stack(codes), _stack(scale), table)
    # A plane at a time, for numpy makes indices of eight bytes of the codes, and those of one
    # plane stay in the processor's cache: half the time of torch's way.
    flux = in_large_pages((len(codes), *codes[0].shape), torch.float32)
    for sample, whole, factors in zip(flux, codes, scale, strict=True):
        places = whole.numpy().view(_UNSIGNED[whole.dtype])
        for band, plane, factor in zip(sample, places, factors, strict=True):
            np.take(table.numpy(), plane, out=band.numpy(), mode="clip")
            band.mul_(factor)
    return flux


def look_up(
    codes: Shaped[Tensor, "sample band y x"],
    scale: Float32[Tensor, "sample band"],
    table: Float32[Tensor, " code"],
) -> Float32[Tensor, "sample band y x"]:
    """`table` at the codes' unsigned bits, times `scale`: in torch, for any device."""
    places = codes.flatten().int() & (len(table) - 1)
    return table.index_select(0, places).view(codes.shape).mul_(scale[..., None, None])


def _apart(decoded: Batch, coded: Batch) -> Batch:
    """A decoded batch with copies of the planes that are still the coded one's."""
    for survey, tensors in decoded["views"].items():
        for name, values in tensors.items():
            if values.data_ptr() == coded["views"][survey][name].data_ptr():
                tensors[name] = values.clone()
    return decoded


def _on_cpu(samples: Samples) -> bool:
    views = samples[0]["views"].values()
    return all(tensor.device.type == "cpu" for planes in views for tensor in planes.values())


def _stack(values: Tensor | Sequence[Tensor]) -> Tensor:
    return values if isinstance(values, Tensor) else torch.stack(list(values))


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
