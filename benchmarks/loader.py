"""Loading random batches of ten-band patches as float32 flux, against what else one could take.

    python benchmarks/loader.py [--patches 400] [--rounds 5] [--out docs/benchmarks/loader.json]

All load the same batches of the same field in the same order, and the consumer ends with the same
float32 flux. `2 workers`: processes of one thread each, started by forkserver, the same for all.
`in process`: no workers. Peers take turns; the fastest epoch of each counts. `from disk` is one
epoch with the pages of the files dropped from memory before it, as for a store that is larger than
memory. Prints ratios; absolute numbers belong to the machine that it names.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import made_up  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import zarr  # noqa: E402
from machine import machine  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import jaisp  # noqa: E402
from jaisp.config import parse_config  # noqa: E402
from jaisp.store.batches import Batches, decode_planes, worker_options  # noqa: E402
from jaisp.store.dataset import MatchedViews  # noqa: E402

BANDS, PIXELS, BATCH, WORKERS = 10, 256, 16, 2


def make_store(folder: Path, patches: int) -> Path:
    """A published store of noise and sources, and its fluxes as plain arrays beside it."""
    side = int(np.ceil(np.sqrt(patches)))
    content = {
        "run": "loader",
        "sky": {"ra": 53.1, "dec": -28.1, "width_arcmin": side * 51.2 / 60 + 0.1,
                "height_arcmin": side * 51.2 / 60 + 0.1},
        "patch": {"arcsec": 51.2},
        "surveys": {"ten": {"bands": [f"b{k}" for k in range(BANDS)], "pixel_arcsec": 0.2,
                            "archive": {"kind": "simulated"}},
                    # A run has two surveys at least; this one is not read.
                    "other": {"bands": ["b"], "pixel_arcsec": 1.6,
                             "archive": {"kind": "simulated"}}},
    }  # fmt: skip
    os.chdir(folder)
    config = parse_config(content, folder / "loader.yaml")
    path = made_up.make_store(config)
    codes = zarr.open_array(path / "field/ten/flux", mode="r")
    scale = zarr.open_array(path / "field/ten/scale", mode="r")[...]
    for name, dtype in (("int16", np.int16), ("float32", np.float32)):
        whole = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, codes.shape)
        for row in range(codes.shape[0]):
            values = torch.from_numpy(codes[row])
            if name == "float32":
                values = decode_planes(values[None], torch.from_numpy(scale[row, None]))[0]
            whole[row] = values.numpy()
        whole.flush()
    np.save(folder / "scale.npy", scale)
    return path


class Memmap(Dataset):
    """One file of all patches, [patch, band, y, x]; a sample is the page cache's own memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.scale = folder / f"{name}.npy", np.load(folder / "scale.npy")
        self.values: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "values": None}

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        if self.values is None:
            self.values = np.load(self.path, mmap_mode="c")
        return torch.from_numpy(self.values[place]), torch.from_numpy(self.scale[place])


class ZarrPython(Memmap):
    """The store's own array, read by zarr-python."""

    def __init__(self, folder: Path, store: Path) -> None:
        super().__init__(folder, "int16")
        self.path = store / "field/ten/flux"

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        if self.values is None:
            self.values = zarr.open_array(self.path, mode="r")
        return torch.from_numpy(self.values[place]), torch.from_numpy(self.scale[place])


def flux_of(batch: Any) -> Tensor:
    """What the consumer makes of a batch, whoever loaded it: float32 flux."""
    if isinstance(batch, dict):
        return batch["views"]["ten"]["flux"]
    values, scale = batch
    return values if values.dtype == torch.float32 else decode_planes(values, scale)


def loaders(folder: Path, store: Path, order: list[int]) -> dict[str, Callable[[], Iterable]]:
    """By name, what makes a loader of all the batches."""
    batches = [order[k : k + BATCH] for k in range(0, len(order), BATCH)]

    def ours(workers: int, memory_gib: float = 0.0) -> Callable[[], Iterable]:
        def make() -> Iterable:
            views = MatchedViews(
                jaisp.open(store), surveys=["ten"], planes=["flux"], memory_gib=memory_gib
            )
            return Batches(views, BATCH, sampler=order, workers=workers, device="cpu")

        return make

    def peer(dataset: Dataset, workers: int) -> Callable[[], Iterable]:
        options = worker_options(workers) if workers else {}
        return lambda: DataLoader(dataset, batch_sampler=batches, **options)

    int16, float32 = Memmap(folder, "int16"), Memmap(folder, "float32")
    zarr_python = ZarrPython(folder, store)
    return {
        "ours, in memory, in process": ours(0, 1e3),
        "ours, read ahead, in process": ours(0),
        "ours, read, 2 workers": ours(WORKERS),
        "memmap int16, 2 workers": peer(int16, WORKERS),
        "memmap int16, in process": peer(int16, 0),
        "memmap float32, 2 workers": peer(float32, WORKERS),
        "zarr-python, 2 workers": peer(zarr_python, WORKERS),
    }


def epoch(loader: Iterable) -> tuple[float, float]:
    """Seconds of one epoch, and the sum of all flux: proof of the same work."""
    began, total = time.perf_counter(), 0.0
    for batch in loader:
        total += flux_of(batch)[:, :, ::64, ::64].double().nansum().item()
    return time.perf_counter() - began, total


def forget(folder: Path) -> None:
    """Drop every file's pages from memory."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def contest(folder: Path, store: Path, patches: int, rounds: int) -> dict[str, Any]:
    """Patches a second of every loader: fastest epoch, first epoch, epoch from disk."""
    rng = np.random.default_rng(1)
    order = rng.permutation(patches).tolist()
    made = loaders(folder, store, order)
    best, first, cold, totals = {}, {}, {}, {}
    for name, make in made.items():
        loader = make()
        epoch(loader)  # start workers, open files, fill page cache and memory
        first[name] = epoch(make())[0] if "in process" in name else None
        made[name] = loader  # type: ignore[assignment]
    for _ in range(rounds):
        for name, loader in made.items():
            took, totals[name] = epoch(loader)  # type: ignore[arg-type]
            best[name] = min(best.get(name, np.inf), took)
    for name, loader in made.items():
        if "in memory" not in name:
            forget(folder)
            cold[name] = epoch(loader)[0]  # type: ignore[arg-type]
    reference = "memmap int16, 2 workers"
    assert np.allclose(list(totals.values()), totals[reference], rtol=1e-6), totals
    return {
        name: {
            "patches_per_s": round(patches / best[name], 1),
            "over_memmap_int16": round(best[reference] / best[name], 2),
            "first_epoch_over_memmap_int16": (
                round(best[reference] / first[name], 2) if first[name] else None
            ),
            "from_disk_patches_per_s": round(patches / cold[name], 1) if name in cold else None,
            "from_disk_over_memmap_int16": (
                round(cold[reference] / cold[name], 2) if name in cold else None
            ),
        }
        for name in made
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    out = chosen.out.absolute() if chosen.out else None
    torch.set_num_threads(1)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder, chosen.patches)
        patches = len(jaisp.open(store))
        size = sum(f.stat().st_size for f in (store / "field/ten/flux").rglob("*") if f.is_file())
        found = {
            "machine": machine(),
            "patches": patches,
            "bands": BANDS,
            "pixels": PIXELS,
            "batch": BATCH,
            "workers": WORKERS,
            "stored_over_int16": round(size / (folder / "int16.npy").stat().st_size, 3),
            "loaders": contest(folder, store, patches, chosen.rounds),
        }
        os.chdir(home)
    table = Table(
        "loader", "patches/s", "over memmap int16", "first epoch", "from disk, patches/s",
        "over memmap int16", title=found["machine"],
    )  # fmt: skip
    for name, row in found["loaders"].items():
        table.add_row(name, *("" if value is None else f"{value:g}" for value in row.values()))
    Console().print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
