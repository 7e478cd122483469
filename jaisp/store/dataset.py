"""Matched views of a patch store as a torch dataset: small integers, until `decode` on the device.

A sample is one square of sky in every survey asked for. `jaisp.store.batches` loads batches of
them and decodes them; docs/store.md has an example.
"""

import copy
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from jaisp.errors import UserError
from jaisp.sky import plane_radec
from jaisp.store.layout import PLANES
from jaisp.store.reader import Store, damage_told

# What a plane's integers are multiples of.
SCALES = {"flux": "scale", "noise": "noise_scale"}
# Patches read at a time when a whole store is taken into memory.
BLOCK = 32
# Of the free memory of a GPU, what a store may take.
GPU_SHARE = 0.5

Batch = dict[str, Any]
Views = dict[str, dict[str, Tensor]]
Futures = list[tuple[Path, tensorstore.WriteFutures]]  # and which array each is of


class MatchedViews(Dataset[Batch]):
    """The patches that every survey asked for covers, as torch samples.

    A sample is a dict of

    - `patch`, the store's patch number; `ra`, `dec` (degrees) and `x`, `y` (arcsec on the cell's
      plane), the centre of the square that is shown;
    - `views`: by survey, the `planes` asked for, [band, y, x]: `flux` int16 (float32 in a store
      of those), `noise` and `mask` uint8; and their `scale` and `noise_scale`, float32 [band].
      docs/store.md says what the integers mean; `jaisp.store.batches.decode` makes nJy of them.

    Parameters
    ----------
    store: from `jaisp.open`.
    numbers: a split's name, patch numbers, or None for all patches.
    surveys: default all of the store.
    bands: by survey, the bands to read, in this order; default all.
    planes: which of flux, noise and mask to read.
    crop_arcsec: side of a random square in each patch, the same sky for all surveys, whole pixels
        of each; None for whole patches.
    seed: of the crops, which come from (seed, epoch, place in the dataset) alone.
    memory_gib: patches of up to this size in all are kept in memory once they are first needed.
    device: a GPU keeps them instead when they take at most half of its free memory.

    Only the process that made the dataset keeps patches; a copy in a worker reads the store.
    Raises UserError when no patch is left, and for an unknown band or an impossible crop.
    """

    def __init__(
        self,
        store: Store,
        numbers: str | Sequence[int] | np.ndarray | None = None,
        surveys: Sequence[str] | None = None,
        *,
        bands: Mapping[str, Sequence[str]] | None = None,
        planes: Sequence[str] = PLANES,
        crop_arcsec: float | None = None,
        seed: int = 0,
        memory_gib: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.store, self.seed, self.planes = store, seed, tuple(planes)
        self.surveys = list(store.surveys if surveys is None else surveys)
        self.bands = {s: _band_numbers(store, s, (bands or {}).get(s)) for s in self.surveys}
        # Crops lie on the finest grid whose steps are whole pixels of every survey.
        self._steps_per_token = math.gcd(*(store.pixels_per_token(s) for s in self.surveys))
        self.step_arcsec = store.token_arcsec / self._steps_per_token
        self._patch_steps = round(store.patch_arcsec / self.step_arcsec)
        self._steps = self._patch_steps if crop_arcsec is None else self._crop_steps(crop_arcsec)
        if isinstance(numbers, str) or numbers is None:
            numbers = store.where(numbers)
        self.numbers = self._covered(np.asarray(numbers, int))
        if not len(self.numbers):
            raise UserError(f"{store.path}: no such patch is covered by {', '.join(self.surveys)}")
        scales = [SCALES[plane] for plane in self.planes if plane in SCALES]
        self._scales = {
            survey: {name: store.table(name, survey)[self.numbers][:, bands] for name in scales}
            for survey, bands in self.bands.items()
        }
        # In shared memory, for workers that live longer than an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._device = torch.device(device)
        # Whether all patches are, or will be, kept in memory.
        self.resident = self.gib() <= _room_gib(self._device, memory_gib)
        self._kept: Views | None = None
        # Batches whose memory is used in turn (see `in_turn`): how many, and what is there.
        self._turns, self._lent = 0, deque[Views]()

    def in_turn(self, turns: int) -> "MatchedViews":
        """The same views, to be read as batches of which the memory of the last `turns` is used
        again: they are not to be kept. Fresh memory that processes share costs as much as
        unpacking what is put there."""
        lending = copy.copy(self)
        lending._turns, lending._lent = turns, deque()
        return lending

    def __len__(self) -> int:
        return len(self.numbers)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "resident": False, "_lent": deque()}

    def __getitem__(self, place: int) -> Batch:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> "Samples":
        """The samples at some places; every chunk is asked for before the first is waited for."""
        if self.resident:
            return self._from_memory(places)
        used = self._lent.popleft() if self._turns and len(self._lent) >= self._turns else None
        samples = self.begin(places, used).samples()
        if self._turns and samples.batch is not None:
            # Of a last batch that is short, the whole memory stays.
            views = samples.batch["views"]
            self._lent.append(views if used is None or len(places) >= _length(used) else used)
        return samples

    def begin(self, places: Sequence[int], views: Views | None = None) -> "Reading":
        """Begin to read a batch; tensorstore's threads go on with it.

        views: of an earlier batch that nobody needs any more; its memory is used again.
        """
        corners = self._corners(places)
        batch = self._about(places, corners)
        for survey, tensors in batch["views"].items():
            for plane, (shape, dtype) in self._layout(survey, self._steps).items():
                used = None if views is None else views[survey][plane][: len(places)]
                fits = used is not None and len(used) == len(places)
                tensors[plane] = used if fits else _empty((len(places), *shape), dtype)
        reading = self._begin(batch["views"], places, corners, self._steps)
        return Reading(batch, reading)

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops, in workers too. To be called before the epoch's first batch."""
        self._epoch.fill_(epoch)

    def gib(self) -> float:
        """Size of all whole patches, as they would be kept."""
        sizes = (
            math.prod(shape) * dtype.itemsize
            for survey in self.surveys
            for shape, dtype in self._layout(survey, self._patch_steps).values()
        )
        return len(self) * sum(sizes) / 2**30

    def _covered(self, numbers: Int[np.ndarray, " patch"]) -> Int[np.ndarray, " covered"]:
        """Those that every survey covers in at least one of its bands asked for."""
        seen = np.ones(len(numbers), bool)
        for survey, bands in self.bands.items():
            seen &= (self.store.coverage(survey)[numbers][:, bands] > 0).any(axis=1)
        return numbers[seen]

    def _crop_steps(self, crop_arcsec: float) -> int:
        steps = round(crop_arcsec / self.step_arcsec)
        whole = abs(steps * self.step_arcsec - crop_arcsec) < 1e-6
        if not whole or not 0 < steps <= self._patch_steps:
            raise UserError(
                f"crop_arcsec {crop_arcsec:g}: must be a multiple of {self.step_arcsec:g} (whole "
                f"pixels of {', '.join(self.surveys)}) up to {self.store.patch_arcsec:g}"
            )
        return steps

    def _corners(self, places: Sequence[int]) -> Int[np.ndarray, "sample 2"]:
        """First row and column of each sample's square, in steps."""
        last = self._patch_steps - self._steps
        if last == 0:
            return np.zeros((len(places), 2), int)
        epoch = int(self._epoch)
        draws = (np.random.default_rng([self.seed, epoch, int(place)]) for place in places)
        return np.stack([rng.integers(0, last + 1, size=2) for rng in draws])

    def _layout(self, survey: str, steps: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape [band, y, x] and type of a sample's planes."""
        side = self._pixels(survey, steps)
        stored = self.store.group(self.store.cells[0], survey)
        return {
            plane: (
                (len(self.bands[survey]), side, side),
                getattr(torch, stored.array(plane).dtype.name),
            )
            for plane in self.planes
        }

    def _pixels(self, survey: str, steps: int) -> int:
        return steps * self.store.pixels_per_token(survey) // self._steps_per_token

    def _window(self, survey: str, corner: Int[np.ndarray, "2"], steps: int) -> tuple[slice, slice]:
        """Rows and columns of a square of the patch in a survey's pixels."""
        side = self._pixels(survey, steps)
        y, x = (self._pixels(survey, int(first)) for first in corner)
        return slice(y, y + side), slice(x, x + side)

    def _about(self, places: Sequence[int], corners: Int[np.ndarray, "sample 2"]) -> Batch:
        """A batch without its planes: numbers, centres, scales."""
        numbers = self.numbers[list(places)]
        index, store = self.store.index, self.store
        # From the patch's centre to the square's: rows grow with y, columns with x.
        shift = (corners + (self._steps - self._patch_steps) / 2) * self.step_arcsec
        x, y = index.x[numbers] + shift[:, 1], index.y[numbers] + shift[:, 0]
        ra, dec = index.ra[numbers], index.dec[numbers]
        if shift.any():
            for name in np.unique(index.cell[numbers]):
                here = index.cell[numbers] == name
                ra[here], dec[here] = plane_radec(store.cell(str(name)), x[here], y[here])
        about = {"patch": numbers, "ra": ra, "dec": dec, "x": x, "y": y}
        views = {
            survey: {name: torch.from_numpy(table[list(places)]) for name, table in tables.items()}
            for survey, tables in self._scales.items()
        }
        return {name: torch.from_numpy(values) for name, values in about.items()} | {"views": views}

    def _begin(
        self,
        views: Views,
        places: Sequence[int],
        corners: Int[np.ndarray, "sample 2"],
        steps: int,
    ) -> Futures:
        """Begin to read squares of the sky straight into `views`."""
        index = self.store.index
        futures: Futures = []
        for survey, bands in self.bands.items():
            every = bands == list(range(len(self.store.bands(survey))))
            for k, (place, corner) in enumerate(zip(places, corners, strict=True)):
                number = self.numbers[place]
                group = self.store.group(str(index.cell[number]), survey)
                row, window = int(index.row[number]), self._window(survey, corner, steps)
                for plane in self.planes:
                    into = views[survey][plane][k].numpy()
                    path = group.path / plane
                    if every:
                        begun = group.begin(plane, (row, slice(None), *window), into)
                        futures.append((path, begun))
                        continue
                    for b, band in enumerate(bands):
                        begun = group.begin(plane, (row, band, *window), into[b])
                        futures.append((path, begun))
        return futures

    def _from_memory(self, places: Sequence[int]) -> "Samples":
        """Samples whose planes are parts of those kept: nothing is copied."""
        kept = self._keep()
        corners = self._corners(places)
        samples = Samples(split(self._about(places, corners), len(places)))
        for sample, place, corner in zip(samples, places, corners, strict=True):
            for survey, tensors in sample["views"].items():
                window = self._window(survey, corner, self._steps)
                for plane in self.planes:
                    tensors[plane] = kept[survey][plane][place][:, *window]
        return samples

    def _keep(self) -> Views:
        """All whole patches, read the first time."""
        if self._kept is None:
            views = {
                survey: {
                    plane: in_large_pages((len(self), *shape), dtype)
                    for plane, (shape, dtype) in self._layout(survey, self._patch_steps).items()
                }
                for survey in self.surveys
            }
            for block in np.split(np.arange(len(self)), range(BLOCK, len(self), BLOCK)):
                part = {
                    survey: {plane: t[block[0] : block[-1] + 1] for plane, t in tensors.items()}
                    for survey, tensors in views.items()
                }
                corners = np.zeros((len(block), 2), int)
                reading = self._begin(part, block.tolist(), corners, self._patch_steps)
                for path, future in reading:
                    with damage_told(path):
                        future.result()
            self._kept = {
                survey: {plane: tensor.to(self._device) for plane, tensor in tensors.items()}
                for survey, tensors in views.items()
            }
        return self._kept


class Samples(list[Batch]):
    """The samples of a batch; `batch` is the whole that they are parts of, where there is one."""

    batch: Batch | None = None


class Reading:
    """A batch that is being read."""

    def __init__(self, batch: Batch, futures: Futures) -> None:
        self._batch, self._futures = batch, futures

    def batch(self) -> Batch:
        """The batch, when all of it is there."""
        for path, future in self._futures:
            with damage_told(path):
                future.result()
        return self._batch

    def samples(self) -> Samples:
        """The batch's samples."""
        batch = self.batch()
        samples = Samples(split(batch, len(batch["patch"])))
        samples.batch = batch
        return samples


def split(batch: Batch, length: int) -> list[Batch]:
    """The samples of a batch, as views of its tensors."""

    def part(value: Any, k: int) -> Any:
        if isinstance(value, dict):
            return {name: part(inner, k) for name, inner in value.items()}
        return value[k]

    return [part(batch, k) for k in range(length)]


def _length(views: Views) -> int:
    """Samples in a batch's planes."""
    return len(next(iter(next(iter(views.values())).values())))


def _band_numbers(store: Store, survey: str, names: Sequence[str] | None) -> list[int]:
    known = store.bands(survey)
    unknown = [name for name in names or [] if name not in known]
    if unknown or (names is not None and not names):
        raise UserError(
            f"bands of {survey}: {', '.join(unknown) or 'none given'}; the store holds "
            f"{', '.join(known)}"
        )
    return [known.index(name) for name in (known if names is None else names)]


def _room_gib(device: torch.device, memory_gib: float) -> float:
    if device.type == "cuda":
        return GPU_SHARE * torch.cuda.mem_get_info(device)[0] / 2**30
    return memory_gib


def in_large_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor in numpy's memory, which asks the system for large pages as torch's does
    not: a batch's float32 flux is filled for the first time in half the time."""
    return torch.from_numpy(np.empty(shape, str(dtype).removeprefix("torch.")))


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor; in a worker in shared memory, as torch's own collating does, so that
    the batch goes to the training process without being copied."""
    if get_worker_info() is None:
        return in_large_pages(shape, dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)
