"""Hold `jaisp plan --estimate` to a real run: measured over foreseen, stage by stage.

    python benchmarks/estimate.py [--evaluate] [--out docs/benchmarks/estimate.json]

A field of another size, of other bands and in several cells than the one that rates are measured
on. CPU seconds are those of the stages' commands, with the starts of as many jobs as the estimate
counts taken from one command each. Files and bytes are what lies in the results.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from machine import machine
from rates import STAGES, command, size_of
from rich.console import Console
from rich.table import Table

from jaisp.config import Config, load_config
from jaisp.estimate import estimate, read_rates
from jaisp.files import write_json

FIELD = {
    "run": "check",
    "sky": {"ra": 150.1, "dec": 2.2, "width_arcmin": 8.0, "height_arcmin": 4.5},
    "cell_order": 9,
    "split": {"test": 0.2, "validation": 0.0},
    "surveys": {
        "rubin": {"bands": ["g", "r", "i"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
        "euclid_q1": {"bands": ["VIS"], "pixel_arcsec": 0.1, "archive": {"kind": "simulated"}},
    },
    "inject": {"patches": 12},
    "model": {"size": "tiny"},
    "train": {"steps": 20},
    "evaluate": {"patches": 6, "band_patches": 3, "withheld_patches": 2, "edge_tokens": 6},
}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluate", action="store_true", help="too; it takes long")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out, home = options.out and options.out.absolute(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["JAISP_CACHE"] = f"{folder}/cache"
        Path("check.yaml").write_text(yaml.safe_dump(FIELD))
        config = load_config(Path("check.yaml"))
        rows = compare(config, options.evaluate)
        os.chdir(home)
    table = Table("stage", "what", "foreseen", "measured", "measured / foreseen", title=machine())
    for row in rows:
        figures = (row["foreseen"], row["measured"], row["ratio"])
        table.add_row(row["stage"], row["what"], *(f"{value:.4g}" for value in figures))
    Console().print(table)
    if out:
        write_json(out, {"machine": machine(), "rows": rows})


def compare(config: Config, with_evaluate: bool) -> list[dict[str, Any]]:
    """Run every stage and set it beside what was foreseen."""
    foreseen = {row.stage: row for row in estimate(config).rows}
    starts = read_rates()["stages"]["core_s"]
    rows = []

    def add(stage: str, what: str, guess: float, found: float) -> None:
        ratio = found / guess
        row = {"foreseen": guess, "measured": found, "ratio": round(ratio, 3)}
        rows.append({"stage": stage, "what": what, **row})

    for stage, words in STAGES.items():
        if stage == "evaluate" and not with_evaluate:
            continue
        took = command(config, *words)
        if stage in foreseen and stage in starts:
            # One command does what these jobs do, and starts once.
            more = (foreseen[stage].jobs - 1) * starts[stage]["a_job"]
            guess = (foreseen[stage].core_hours or 0.0) * 3600 - more
            add(stage, "core s", guess, took)
    groups = [
        config.results / "patches.zarr" / path.parent.name / path.name
        for survey in config.surveys
        for path in (config.results / "patches.zarr").glob(f"*/{survey}")
    ]
    bytes_of = {
        "simulate": size_of(config.results / "simulated"),
        "warp": sum(map(size_of, groups)),
        "embed": size_of(config.results / "embeddings.zarr"),
        "maps": size_of(config.results / "maps"),
    }
    for stage, found in bytes_of.items():
        add(stage, "bytes", foreseen[stage].bytes or 0.0, found)
    files = sum(1 for group in groups for path in group.rglob("*") if path.is_file())
    add("warp", "files", foreseen["warp"].files - len(groups), files)
    return rows


if __name__ == "__main__":
    main()
