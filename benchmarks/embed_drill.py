"""Embed a field with 1 and with N workers, with other threads, and killed again and again; compare.

    python benchmarks/embed_drill.py [--workers 3] [--kills 10] [--out docs/embed_drill.json]

A made-up field of several cells in two surveys, and encoders with fresh weights. One process that
goes over all of it, in one thread, gives the bytes to compare with: `embeddings.zarr`, and the FITS
files and pictures of `maps`. Then: N processes at once, each with cells of its own; one process
with as many threads; and N processes, all of them killed with SIGKILL at random moments, whose
commands are given again until they end. Ends with status 1 unless all bytes are equal.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from machine import machine
from made_up import make_store

from jaisp.config import Config, load_config
from jaisp.files import remove_folder, sha256, write_json
from jaisp.model import save_model
from jaisp.sky import cells
from jaisp.store.reader import open_store
from jaisp.train.fresh import new_model

CONFIG = {
    "run": "drill",
    "sky": {"ra": 53.13, "dec": -28.10, "width_arcmin": 8.0, "height_arcmin": 6.0},
    "cell_order": 10,
    "patch": {"arcsec": 25.6},
    "surveys": {
        "rubin": {"bands": ["g", "r", "i"], "pixel_arcsec": 0.4, "archive": {"kind": "simulated"}},
        "euclid_q1": {"bands": ["VIS"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
    },
    "model": {"size": "tiny", "dimensions": 16},
}
WRITTEN = ("embeddings.zarr", "maps")
LEFT = (*WRITTEN, ".tokens", ".maps", ".partial", "receipts")


def fresh_model(config: Config) -> None:
    """Encoders with fresh weights."""
    store = open_store(config.results / "patches.zarr")
    model = new_model(store, config.model, noise={}, seed=1)
    save_model(model.cpu(), config.results / "model", "Fresh weights.")


def start(*arguments: str, threads: int = 1) -> subprocess.Popen:
    """`jaisp embed`, in a process group of its own."""
    command = [sys.executable, "-c", "from jaisp.cli import main; main()", "embed"]
    command += ["--config", "drill.yaml", "--threads", str(threads), *arguments]
    with Path("stderr.txt").open("a") as log:
        return subprocess.Popen(command, stderr=log, start_new_session=True)


def run(commands: list[list[str]], threads: int = 1) -> None:
    """All of them at once, to their ends."""
    for process in [start(*command, threads=threads) for command in commands]:
        if process.wait():
            sys.exit(f"status {process.returncode}:\n{Path('stderr.txt').read_text()}")


def shared_out(config: Config, workers: int, *options: str) -> list[list[list[str]]]:
    """Commands of one cell and survey each, in rounds of as many as there are workers."""
    each = [
        [*options, "--cell", cell.name, "--survey", survey]
        for cell in cells(config)
        for survey in config.surveys
    ]
    return [each[first : first + workers] for first in range(0, len(each), workers)]


def one(config: Config, threads: int = 1) -> None:
    """One process goes over all."""
    run([[]], threads)


def many(config: Config, workers: int) -> None:
    """As the workflow's jobs do."""
    for commands in shared_out(config, workers):
        run(commands)
    run([["--basis"]])
    for commands in shared_out(config, workers, "--maps"):
        run(commands)
    run([["--gather"]])


def killed(config: Config, kills: int, seconds: float, moments: random.Random) -> None:
    """One process a survey, killed together, until they have survived the last kill."""
    for _ in range(kills):
        processes = [start("--survey", survey) for survey in config.surveys]
        time.sleep(moments.uniform(0.2, 1.0) * seconds)
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    run([["--survey", survey] for survey in config.surveys])
    one(config)


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out, home = options.out and options.out.absolute(), Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        Path("drill.yaml").write_text(yaml.safe_dump(CONFIG))
        config = load_config("drill.yaml")
        make_store(config)
        fresh_model(config)
        expected, seconds = measured(config, one)
        moments = random.Random(options.seed)
        equal = {}
        ways: dict[str, Callable[[Config], None]] = {
            f"{options.workers} workers": lambda c: many(c, options.workers),
            f"{options.workers} threads": lambda c: one(c, options.workers),
            f"{options.kills} kills": lambda c: killed(c, options.kills, seconds, moments),
        }
        for name, way in ways.items():
            found, _ = measured(config, way)
            equal[name] = found == expected
            print(f"{name}: {'equal' if equal[name] else 'different'}", flush=True)
        counted = {"cells": len(cells(config)), "files": sum(map(len, expected.values()))}
        os.chdir(home)
    print(json.dumps({**counted, "equal": equal}))
    if out:
        write_json(out, {"machine": machine(), **counted, "equal": equal})
    sys.exit(0 if all(equal.values()) else 1)


def measured(
    config: Config, way: Callable[[Config], None]
) -> tuple[dict[str, dict[str, str]], float]:
    """Embed from nothing; the checksums of all that was written, and the seconds."""
    for name in LEFT:
        remove_folder(config.results / name)
    began = time.perf_counter()
    way(config)
    seconds = time.perf_counter() - began
    found = {}
    for name in WRITTEN:
        folder = config.results / name
        files = [path for path in folder.rglob("*") if path.is_file()]
        found[name] = {str(path.relative_to(folder)): sha256(path) for path in files}
    return found, seconds


if __name__ == "__main__":
    main()
