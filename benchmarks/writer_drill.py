"""Kill the writer of a store's group with SIGKILL at random instants, resume it, compare.

    python benchmarks/writer_drill.py --kills 50 [--seed 1] [--out docs/writer_drill.json]

Where `kill_drill.py` kills whole runs, which mostly start Python, this one kills only the process
of `jaisp warp`, and only while it writes its group, renames it into place and notes its receipts.
Each round warps one cell in one survey, killed one to four times on the way, then to its end, and
publishes. Between kill and resume, `jaisp publish` has to refuse what it finds, in one line and
with status 2, unless the group is in its place and the store equals the undisturbed one.
Ends with status 1 unless every store equals the undisturbed one, byte for byte.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml

from jaisp.cli import main as jaisp
from jaisp.files import folder_sha256

CELL, SURVEY = "field", "euclid_q1"
# Two bands of 256² pixels: 128 patches fill a shard, so that the group has two of each plane.
CONFIG = {
    "run": "drill",
    "sky": {"ra": 53.13, "dec": -28.10, "width_arcmin": 5.12, "height_arcmin": 5.12},
    "patch": {"arcsec": 25.6},
    "simulate": {"tiles_per_side": 1, "galaxies_per_arcmin2": 10},
    "surveys": {
        "rubin": {"bands": ["r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
        SURVEY: {
            "bands": ["VIS", "H"],
            "pixel_arcsec": 0.1,
            "archive": {"kind": "simulated"},
        },
    },
}
RESULTS = Path("results") / "drill"
STORE = RESULTS / "patches.zarr"
PARTIAL = RESULTS / ".partial" / CELL / SURVEY
LAST_WRITTEN = PARTIAL / "noise_correlation"
SIGNS = {
    "partial": PARTIAL,
    "final": STORE / CELL / SURVEY,
    "noted": RESULTS / ".groups" / f"{CELL}.{SURVEY}.json",
    "receipt": RESULTS / "receipts" / "warp" / f"{CELL}.{SURVEY}.json",
}
WARP = ("warp", "--cell", CELL, "--survey", SURVEY)
PYTHON = multiprocessing.get_context("forkserver")
MOST_KILLS_A_ROUND = 4


def run_command(folder: Path, arguments: tuple[str, ...]) -> None:
    """What a process does: one command of `jaisp`, as if typed in `folder`."""
    os.chdir(folder)
    said = os.open("said.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["jaisp", *arguments, "--config", "drill.yaml"]
    jaisp()


def start(folder: Path, *arguments: str) -> BaseProcess:
    """A command of `jaisp` in a process that has imported everything already."""
    process = PYTHON.Process(target=run_command, args=(folder, arguments))
    process.start()
    return process


def finish(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run a command to its end; returns its status and the lines that it said."""
    process = start(folder, *arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode, (folder / "said.txt").read_text().splitlines()


def finish_well(folder: Path, *arguments: str) -> None:
    """Run a command that has to succeed."""
    status, lines = finish(folder, *arguments)
    if status:
        sys.exit(f"jaisp {' '.join(arguments)} ended with status {status}:\n" + "\n".join(lines))


def wait_for(path: Path, process: BaseProcess) -> float:
    """The time at which `path` appears, or the process ends."""
    while not path.exists() and process.is_alive():
        time.sleep(0.0005)
    return time.monotonic()


def prepare(folder: Path) -> None:
    """All that comes before the group that is drilled."""
    folder.mkdir()
    (folder / "drill.yaml").write_text(yaml.safe_dump(CONFIG))
    for arguments in (("simulate",), ("plan",), ("fetch",), ("warp", "--survey", "rubin")):
        finish_well(folder, *arguments)


def undisturbed(prepared: Path, folder: Path) -> tuple[str, dict[str, float]]:
    """The store's checksum, and how long the writer takes: fastest of three, in seconds."""
    taken: dict[str, list[float]] = {"writing": [], "ending": []}
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        process = start(folder, *WARP)
        began = wait_for(folder / PARTIAL, process)
        written = wait_for(folder / LAST_WRITTEN, process)
        ended = wait_for(folder / SIGNS["receipt"], process)
        process.join()
        taken["writing"].append(written - began)
        taken["ending"].append(ended - written)
    finish_well(folder, "publish")
    seconds = {phase: min(values) for phase, values in taken.items()}
    return folder_sha256(folder / STORE), seconds


def kill_once(folder: Path, phase: str, moment: float) -> dict[str, Any] | None:
    """Warp, and kill it `moment` seconds into a phase; None when it ended before that."""
    process = start(folder, *WARP)
    wait_for(folder / (PARTIAL if phase == "writing" else LAST_WRITTEN), process)
    time.sleep(moment)
    process.kill()
    process.join()
    if process.exitcode == 0:
        return None
    if process.exitcode != -9:
        sys.exit("the writer failed by itself:\n" + (folder / "said.txt").read_text())
    row = {"aimed_at": phase, "s": round(moment, 4)}
    return row | {sign: (folder / path).exists() for sign, path in SIGNS.items()}


def judge(folder: Path, row: dict[str, Any], expected: str) -> dict[str, Any]:
    """Whether `publish` takes the killed state for what it is."""
    status, lines = finish(folder, "publish")
    if status == 0:
        honest = row["final"] and folder_sha256(folder / STORE) == expected
    else:
        honest = status == 2 and len(lines) == 1 and lines[0].startswith("jaisp: ")
    said = {} if honest else {"said": lines}
    return row | {"publish_status": status, "honest": honest} | said


def drill(kills: int, seed: int, base: Path) -> dict[str, Any]:
    """All rounds."""
    random_moments = random.Random(seed)
    prepared, folder = base / "prepared", base / "killed"
    prepare(prepared)
    expected, seconds = undisturbed(prepared, base / "undisturbed")
    shards = len(list((base / "undisturbed" / STORE / CELL / SURVEY / "flux/c").glob("*")))
    print(f"undisturbed: {shards} shards a plane, {seconds}", flush=True)
    rows: list[dict[str, Any]] = []
    stores: list[bool] = []
    while len(rows) < kills:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        planned = min(random_moments.randint(1, MOST_KILLS_A_ROUND), kills - len(rows))
        for _ in range(planned):
            phase = random_moments.choice(("writing", "writing", "ending"))
            row = kill_once(folder, phase, random_moments.uniform(0, seconds[phase]))
            if row is None:
                break  # the group is done: nothing is left to kill in this round
            rows.append(judge(folder, row, expected))
            print(f"kill {len(rows)}: {rows[-1]}", flush=True)
        finish_well(folder, *WARP)
        finish_well(folder, "publish")
        stores.append(folder_sha256(folder / STORE) == expected)
    return {
        "kills": len(rows),
        "kills_honest": sum(row["honest"] for row in rows),
        "stores_compared": len(stores),
        "stores_equal": sum(stores),
        "killed_in": dict(Counter(map(phase_of, rows))),
        "shards_a_plane": shards,
        "undisturbed_s": {phase: round(s, 3) for phase, s in seconds.items()},
        "rows": rows,
    }


def phase_of(row: dict[str, Any]) -> str:
    """What the writer was about, as the files tell that it left."""
    if row["partial"] and row["final"]:
        return "writing, an older group in place"
    if row["partial"]:
        return "writing"
    if row["receipt"]:
        return "receipt written"
    if row["noted"]:
        return "renamed and noted"
    return "renamed" if row["final"] else "between"


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["JAISP_CACHE"] = f"{temporary}/cache"
        PYTHON.set_forkserver_preload(["jaisp.cli", "jaisp.simulate", "jaisp.warp", "jaisp.sky"])
        result = drill(options.kills, options.seed, Path(temporary))
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    whole = result["stores_equal"] == result["stores_compared"] > 0
    sys.exit(0 if whole and result["kills_honest"] == result["kills"] else 1)


if __name__ == "__main__":
    main()
