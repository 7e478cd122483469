"""Publish and open stores of 10⁴, 10⁵ and 10⁶ tiny patches: seconds, and the peak of memory.

    python benchmarks/publish.py [--cells 11 106 1058] [--out docs/benchmarks/publish.json]

Each store is of whole HEALPix cells of order 7, some 945 patches of 51.2″ each, in two surveys of
one band and 16 × 16 pixels a patch, all of them covered. Groups of as many patches are copies of
one, with the attributes and receipts that publishing asks for; all of their bytes are read. Every
step is a process of its own, and `imports` one that does nothing else.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table

import jaisp
from jaisp.blocks import cell_batches
from jaisp.config import Config, group_hash, parse_config
from jaisp.files import batch_receipt, folder_sha256, read_json, write_json, write_receipt
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.store.writer import GroupWriter, PatchPlanes

CELLS = (11, 106, 1058)
SURVEYS = ("rubin", "euclid_q1")
CELL_ARCMIN = 27.5


def wide_config(side_cells: float) -> Config:
    """A square of sky whose patches are tiny."""
    survey = {"bands": ["r"], "pixel_arcsec": 3.2, "archive": {"kind": "simulated"}}
    side = side_cells * CELL_ARCMIN
    content = {
        "run": "wide",
        "sky": {"ra": 53.13, "dec": -28.10, "width_arcmin": side, "height_arcmin": side},
        "cell_order": 7,
        "model": {"token_arcsec": 3.2},
        "surveys": dict.fromkeys(SURVEYS, survey),
    }
    return parse_config(content, Path("wide.yaml").absolute())


def fill(config: Config) -> int:
    """Write the groups of every cell; returns the number of patches."""
    store, templates, patches = config.results / "patches.zarr", {}, 0
    sky_cells = cells(config)
    receipts: dict[tuple[str, str], dict] = {}
    for cell in sky_cells:
        patches += len(cell)
        if len(cell) not in templates:
            templates[len(cell)] = template(config, store.parent / "templates", len(cell))
        for survey in SURVEYS:
            group = store / cell.name / survey
            shutil.copytree(templates[len(cell)], group)
            metadata = read_json(group / "zarr.json")
            metadata["attributes"]["hash"] = group_hash(config, survey, cell)
            (group / "zarr.json").write_text(json.dumps(metadata))
            receipts[cell.name, survey] = {
                "cell": cell.name,
                "survey": survey,
                "sha256": folder_sha256(group),
            }
    for name, batch in cell_batches(sky_cells, len(SURVEYS)).items():
        for survey in SURVEYS:
            content = batch_receipt([receipts[cell.name, survey] for cell in batch])
            write_receipt(config, "warp", f"{name}.{survey}", content)
    return patches


def template(config: Config, folder: Path, patches: int) -> Path:
    """A group of so many patches of noise."""
    rng, pixels = np.random.default_rng(patches), config.patch_pixels("rubin")
    noise, mask = np.full((1, pixels, pixels), 5, np.float32), np.zeros((1, pixels, pixels), "u1")
    path = folder / str(patches)
    with GroupWriter(path, ["r"], pixels, patches, 3.2, attributes={"hash": ""}) as group:
        for row in range(patches):
            flux = 5 * rng.standard_normal(noise.shape, dtype=np.float32)
            group.write(row, PatchPlanes(flux, noise, mask, np.ones(1, np.float32)))
        group.finish(np.ones((1, 2), np.float32))
    return path


def open_and_read(config: Config) -> None:
    """What a first look takes: a patch by number and one by name, and their pixels."""
    store = jaisp.open(config.results / "patches.zarr")
    first = store[len(store) // 2]
    for patch in (first, store[f"{store.cells[-1]}/0"]):
        assert np.isfinite(patch["rubin"].flux).all()
        assert patch.split in ("train", "validation", "test", "none")
        assert abs(patch.dec) < 90


STEPS: dict[str, Callable[[Config], Any]] = {
    "imports": lambda config: None,
    "publish": partial(publish, threads=2),
    "open": open_and_read,
}


def child(step: str, side_cells: float) -> None:
    """One step in this process; prints its seconds and the peak of memory."""
    config = wide_config(side_cells)
    began, cpu = time.perf_counter(), time.process_time()
    STEPS[step](config)
    took = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**took, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """The most memory that this process has had; what its parent had doesn't count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def measure(folder: Path, step: str, side_cells: float) -> dict[str, float]:
    """One step in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve())]
    command += ["--step", step, "--side", str(side_cells)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {name: round(value, 3) for name, value in found.items()}


def side_of(wanted: int) -> float:
    """Side, in cells, of a square that holds about so many."""
    # A cell that the square's edge cuts counts as one.
    return max(1.0, float(np.sqrt(wanted)) - 1.0)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--side", type=float)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.step:
        child(options.step, options.side)
        return
    out = options.out and options.out.absolute()
    rows = []
    home = Path.cwd()
    for wanted in options.cells:
        with tempfile.TemporaryDirectory() as temporary:
            os.chdir(temporary)
            config = wide_config(side_of(wanted))
            row: dict[str, Any] = {"cells": len(cells(config)), "patches": fill(config)}
            row |= {step: measure(Path(temporary), step, side_of(wanted)) for step in STEPS}
            rows.append(row)
            print(row, flush=True)
            os.chdir(home)
    show(rows)
    if out:
        write_json(out, {"machine": machine(), "rows": rows})


def show(rows: list[dict[str, Any]]) -> None:
    units = ("s", "cpu_s", "peak_mib")
    table = Table("cells", "patches", *(f"{step} {unit}" for step in STEPS for unit in units))
    for row in rows:
        figures = [str(row[step][unit]) for step in STEPS for unit in units]
        table.add_row(str(row["cells"]), f"{row['patches']:,}", *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
