"""How long `snakemake -n` takes over 10⁶ patches, of a run not begun and of one that is done.

    python benchmarks/plan.py [--side 853] [--rounds 3] [--out docs/benchmarks/plan.json]

The config asks for a square of sky in two surveys; nothing is fetched or warped. The finished run
is made of empty receipts that `snakemake --touch` takes as done, and the dry run has to say so.
Rounds take turns; the fastest of each counts, beside its CPU time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from warp import machine

from jaisp.config import Config, load_config
from jaisp.sky import cells

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("publish", "all")
DONE = "Nothing to be done"
# Touching, it rests for a tenth of a second after each job.
RESTLESS = "from snakemake.executors import touch; touch.Executor.SLEEPING_TIME = 0\n"


def wide_config(side_arcmin: float) -> dict[str, Any]:
    """A square of sky in two surveys of ten bands together."""
    archive = {"kind": "simulated"}
    sides = {"width_arcmin": side_arcmin, "height_arcmin": side_arcmin}
    return {
        "run": "wide",
        "sky": {"ra": 53.13, "dec": -28.10, **sides},
        "patch": {"arcsec": 51.2},
        "surveys": {
            "rubin": {"bands": list("ugrizy"), "pixel_arcsec": 0.2, "archive": archive},
            "euclid_q1": {"bands": ["VIS", "Y", "J", "H"], "pixel_arcsec": 0.1, "archive": archive},
        },
    }


def snakemake(folder: Path, *arguments: str, before: str = "") -> tuple[float, float, str]:
    """Run it to its end, after some Python; returns seconds, CPU seconds and what it said."""
    command = [sys.executable, "-c", f"{before}from snakemake.cli import main; main()"]
    command += [*arguments, "--snakefile", str(ROOT / "Snakefile"), "--configfile", "wide.yaml"]
    command += ["--profile", str(ROOT / "profiles/default")]
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return wall, cpu, done.stdout + done.stderr


def planned_jobs(said: str) -> int:
    """The total of a dry run's table of jobs."""
    totals = [line.split()[1] for line in said.splitlines() if line.split()[:1] == ["total"]]
    return int(totals[0])


def finish(folder: Path, config: Config, names: list[str]) -> None:
    """Every receipt and result, empty, and Snakemake's own notes of them."""
    results = folder / config.results
    stages = ("simulate", "plan", "fetch", "warp", "publish", "train", "embed")
    receipts = [f"{stage}/all" for stage in stages] + [f"fetch/batch{n}" for n in range(4)]
    groups = [f"{cell}.{survey}" for cell in names for survey in config.surveys]
    receipts += [f"{stage}/{group}" for stage in ("warp", "embed") for group in groups]
    files = [f"receipts/{name}.json" for name in receipts]
    files += ["tiles.ecsv", "history.jsonl", "metrics.json", "report.html"]
    # Of the target itself, Snakemake wants its benchmark too.
    files.append("benchmarks/publish.tsv")
    for name in files:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("")
    snakemake(folder, "all", "--touch", "--quiet", "all", "--cores", "1", before=RESTLESS)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Fastest dry runs of either target, and their jobs."""
    rows: dict[str, Any] = {}
    for _ in range(rounds):
        for target in TARGETS:
            wall, cpu, said = snakemake(folder, target, "-n")
            jobs = 0 if DONE in said else planned_jobs(said)
            row = rows.setdefault(target, {"jobs": jobs, "s": wall, "cpu_s": cpu})
            if wall < row["s"]:
                row |= {"s": wall, "cpu_s": cpu}
    for row in rows.values():
        row |= {"s": round(row["s"], 2), "cpu_s": round(row["cpu_s"], 2)}
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=float, default=853.0, help="of the sky, arcmin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.pop("JAISP_DATA", None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "wide.yaml"
        path.write_text(yaml.safe_dump(wide_config(options.side)))
        config = load_config(path)
        began = time.perf_counter()
        sky_cells = cells(config)
        cells_s = time.perf_counter() - began
        found = {
            "machine": machine(),
            "cells": len(sky_cells),
            "patches": sum(len(cell) for cell in sky_cells),
            "cells_s": round(cells_s, 2),
            "not_begun": measure(folder, options.rounds),
        }
        finish(folder, config, [cell.name for cell in sky_cells])
        found["finished"] = measure(folder, options.rounds)
    table = Table("run", "target", "jobs", "s", "CPU s", title=found["machine"])
    for state in ("not_begun", "finished"):
        for target, row in found[state].items():
            table.add_row(state, target, *(str(row[key]) for key in ("jobs", "s", "cpu_s")))
    Console().print(table)
    Console().print({key: found[key] for key in ("cells", "patches", "cells_s")})
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
