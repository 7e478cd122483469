"""How long `snakemake -n` takes over 10³ and 10⁴ cells, of a run not begun and of one that is done.

    python benchmarks/plan.py [--sides 853 2950] [--rounds 3] [--out docs/benchmarks/plan.json]

The config asks for a square of sky in two surveys; nothing is fetched or warped. The finished run
is made of empty receipts that `snakemake --touch` takes as done, and the dry run has to say so.
`empty` is a workflow of as many jobs that does nothing but `touch`. Rounds take turns; the fastest
of each counts, beside its CPU time, and `over_empty` is the ratio of CPU times.
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

from jaisp.blocks import cell_batches
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


OURS = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "wide.yaml"]
# Jobs that depend on one another as ours do: batches of three stages, each gathered.
EMPTY = """
rule all:
    input: "2.all"
rule batch:
    output: "{stage}.{batch}.batch"
    input: lambda w: [] if w.stage == "0" else f"{int(w.stage) - 1}.all"
    shell: "touch {output}"
rule gather:
    output: "{stage}.all"
    input: lambda w: expand("{s}.{b}.batch", s=w.stage, b=range(JOBS // 3))
    shell: "touch {output}"
"""


def snakemake(
    folder: Path, *arguments: str, before: str = "", workflow: list[str] = OURS
) -> tuple[float, float, str]:
    """Run it to its end, after some Python; returns seconds, CPU seconds and what it said."""
    command = [sys.executable, "-c", f"{before}from snakemake.cli import main; main()"]
    command += [*arguments, *workflow, "--profile", str(ROOT / "profiles/default")]
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
    groups = [f"{batch}.{survey}" for batch in names for survey in config.surveys]
    receipts += [f"{stage}/{group}" for stage in ("warp", "embed", "maps") for group in groups]
    receipts.append("maps/basis")
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
    return {target: rounded(row) for target, row in rows.items()}


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"s": round(row["s"], 2), "cpu_s": round(row["cpu_s"], 2)}


def measure_empty(folder: Path, jobs: int, rounds: int) -> dict[str, Any]:
    """The fastest dry run of a workflow of so many jobs that does nothing."""
    path = folder / "empty.smk"
    path.write_text(f"JOBS = {jobs}{EMPTY}")
    took = [snakemake(folder, "-n", workflow=["--snakefile", str(path)]) for _ in range(rounds)]
    wall, cpu, said = min(took)
    return rounded({"jobs": planned_jobs(said), "s": wall, "cpu_s": cpu})


def measure_sky(side_arcmin: float, rounds: int) -> dict[str, Any]:
    """Dry runs of one square of sky."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "wide.yaml"
        path.write_text(yaml.safe_dump(wide_config(side_arcmin)))
        config = load_config(path)
        began = time.process_time()
        sky_cells = cells(config)
        cells_s = time.process_time() - began
        batches = list(cell_batches(sky_cells, len(config.surveys)))
        row = {
            "cells": len(sky_cells),
            "batch_jobs": len(batches) * len(config.surveys),
            "cells_cpu_s": round(cells_s, 2),
            "not_begun": measure(folder, rounds),
        }
        row["empty"] = measure_empty(folder, row["not_begun"]["all"]["jobs"], rounds)
        ratio = row["not_begun"]["all"]["cpu_s"] / row["empty"]["cpu_s"]
        row["over_empty"] = round(ratio, 2)
        finish(folder, config, batches)
        return row | {"finished": measure(folder, rounds)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sides", type=float, nargs="+", default=[853.0, 2950.0], help="of the sky, arcmin"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.pop("JAISP_DATA", None)
    rows = [measure_sky(side, options.rounds) for side in options.sides]
    table = Table("cells", "run", "target", "jobs", "s", "CPU s", title=machine())
    for found in rows:
        shown = [(s, t, r) for s in ("not_begun", "finished") for t, r in found[s].items()]
        for state, target, row in [*shown, ("empty", "", found["empty"])]:
            figures = (str(row[key]) for key in ("jobs", "s", "cpu_s"))
            table.add_row(str(found["cells"]), state, target, *figures)
    Console().print(table)
    Console().print([row["over_empty"] for row in rows])
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
