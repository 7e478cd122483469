"""Time a patch of `warp` and `publish`, of a field of 10² patches and one of 10³.

    python benchmarks/scaling.py [--rounds 5] [--out docs/benchmarks/scaling.json]

tiles: one tile of 100 patches a band, against ten such tiles, each a cell of its own: the same
number of patches a tile, so that what a tile costs by itself (opening it, measuring its stars)
counts alike. sky: a tenth of the patches of one tile, against all of them: what a tile costs by
itself is then shared by ten times as many patches.
Both runs take turns in one process, after one that compiles; pairs are compared by the ratio of
their CPU time a patch, 10³ over 10². The median of the ratios counts.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "BLOSC_NTHREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from warp import machine  # noqa: E402

from jaisp.cli import app  # noqa: E402
from jaisp.config import Config  # noqa: E402
from jaisp.config.load import parse_config  # noqa: E402
from jaisp.sky import cells  # noqa: E402
from jaisp.store.publish import publish  # noqa: E402
from jaisp.warp import warp  # noqa: E402

PATCH_ARCSEC = 12.8
SMALL, LARGE = 10, 32  # patches along a side
BETWEEN_DEG = 0.5  # fields of a tile each


def square(patches_a_side: int, number: int = 0) -> dict[str, float]:
    """A square of sky of whole patches."""
    side = patches_a_side * PATCH_ARCSEC / 60
    ra = 53.13 + number * BETWEEN_DEG
    return {"ra": ra, "dec": -28.10, "width_arcmin": side, "height_arcmin": side}


def config_of(run: str, sky: list[dict[str, float]]) -> Config:
    """Two surveys of three bands together, one tile a region and band."""
    archive = {"kind": "simulated"}
    content = {
        "run": run,
        "sky": sky,
        "patch": {"arcsec": PATCH_ARCSEC},
        "simulate": {"tiles_per_side": 1},
        "surveys": {
            "rubin": {"bands": ["g", "r"], "pixel_arcsec": 0.2, "archive": archive},
            "euclid_q1": {"bands": ["VIS"], "pixel_arcsec": 0.1, "archive": archive},
        },
    }
    path = Path(f"{run}.yaml")
    path.write_text(json.dumps(content))
    return parse_config(content, path.absolute())


def fetch(run: str) -> None:
    """All that comes before warping."""
    for stage in ("simulate", "plan", "fetch"):
        app([stage, "--config", f"{run}.yaml"], standalone_mode=False)


def timed(stage: Callable[[], Any], patches: int) -> dict[str, float]:
    """Milliseconds a patch, CPU and wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    stage()
    taken = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return {clock: 1000 * seconds / patches for clock, seconds in taken.items()}


def run_once(config: Config) -> dict[str, dict[str, float]]:
    """Warp and publish a field from nothing; milliseconds a patch."""
    for left in ("patches.zarr", ".partial", ".groups"):
        shutil.rmtree(config.results / left, ignore_errors=True)
    sky_cells = cells(config)
    patches = sum(len(cell) for cell in sky_cells)

    def warp_all() -> None:
        for cell in sky_cells:
            for survey in config.surveys:
                warp(config, cell, survey)

    found = {
        "warp": timed(warp_all, patches),
        "publish": timed(lambda: publish(config), patches),
    }
    both = {clock: sum(found[stage][clock] for stage in found) for clock in ("cpu", "wall")}
    return {**found, "both": both}


def compare(small: Config, large: Config, rounds: int) -> dict[str, Any]:
    """Paired runs: milliseconds a patch of each, and their ratios."""
    run_once(small)  # compile
    pairs = [(run_once(small), run_once(large)) for _ in range(rounds)]
    counts = [sum(len(cell) for cell in cells(config)) for config in (small, large)]
    found: dict[str, Any] = {"patches": counts}
    for stage in pairs[0][0]:
        for clock in ("cpu", "wall"):
            ratios = [more[stage][clock] / few[stage][clock] for few, more in pairs]
            found[f"{stage}_{clock}"] = {
                "ms_a_patch": [
                    round(statistics.median(pair[which][stage][clock] for pair in pairs), 3)
                    for which in (0, 1)
                ],
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out.absolute() if options.out else None
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["JAISP_CACHE"] = f"{folder}/cache"
        one = config_of("one", [square(SMALL)])
        ten = config_of("ten", [square(SMALL, number) for number in range(10)])
        whole = config_of("whole", [square(LARGE)])
        for run in ("one", "ten", "whole"):
            fetch(run)
        logging.getLogger("jaisp").setLevel(logging.WARNING)
        # The same run's tiles under a smaller piece of sky.
        part = config_of("whole", [square(SMALL)])
        found = {
            "machine": machine(),
            "tiles": compare(one, ten, options.rounds),
            "sky": compare(part, whole, options.rounds),
        }
        os.chdir(home)
    table = Table(
        "fields", "stage, clock", "ms a patch, 10²", "10³", "ratio", "single ratios",
        title=found["machine"],
    )  # fmt: skip
    for fields in ("tiles", "sky"):
        for name, row in found[fields].items():
            if name != "patches":
                shown = [*row["ms_a_patch"], row["ratio"], row["ratios"]]
                table.add_row(fields, name, *map(str, shown))
    Console().print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
