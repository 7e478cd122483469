"""Kill a run with SIGKILL at random moments, start it again with the same command, compare.

    python benchmarks/kill_drill.py --kills 20 [--seed 1] [--out docs/kill_drill.json]

The run is a small simulated field up to its published store. One undisturbed run gives the store
to compare with and the time that it takes; then each killed run is stopped, with every process
that it started, at a random moment within that time, and started again until it ends by itself.
Ends with status 1 unless every store equals the undisturbed one, byte for byte.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from jaisp.files import folder_sha256

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {
    "sky": {"ra": 53.13, "dec": -28.10, "width_arcmin": 1.28, "height_arcmin": 0.43},
    "patch": {"arcsec": 25.6},
    "split": {"test": 0.0, "validation": 0.0},
    "simulate": {"tiles_per_side": 1},
    "surveys": {
        "rubin": {"bands": ["g", "r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
        "euclid_q1": {"bands": ["VIS"], "pixel_arcsec": 0.1, "archive": {"kind": "simulated"}},
    },
}


def start(folder: Path, config: Path) -> subprocess.Popen:
    """The user's command, in a process group of its own so that all of it can be killed."""
    command = ["snakemake", "publish", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--profile", str(ROOT / "profiles/default"), "--configfile", str(config)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "JAISP_CACHE": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr.txt").open("a"),
        start_new_session=True,
    )


def run_whole(folder: Path, config: Path) -> float:
    """Run to the end; returns the seconds that it took."""
    began = time.monotonic()
    status = start(folder, config).wait()
    if status:
        sys.exit(f"the run ended with status {status}:\n{(folder / 'stderr.txt').read_text()}")
    return time.monotonic() - began


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        config = base / "drill.yaml"
        config.write_text(yaml.safe_dump({"run": "drill", **CONFIG}))
        undisturbed = base / "undisturbed"
        undisturbed.mkdir()
        seconds = run_whole(undisturbed, config)
        store = Path("results/drill/patches.zarr")
        expected = folder_sha256(undisturbed / store)
        equal, rows, folder = 0, [], base / "killed"
        for number in range(options.kills):
            if not folder.exists():
                folder.mkdir()
            # A kill may come at any point of a fresh run or of the rerun after earlier kills.
            process = start(folder, config)
            moment = moments.uniform(0.05, seconds)
            time.sleep(moment)
            finished = process.poll() is not None
            if not finished:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if finished or number % 3 == 2 or number == options.kills - 1:
                run_whole(folder, config)
                same = folder_sha256(folder / store) == expected
                equal += same
                rows.append({"killed_at_s": round(moment, 2), "equal": same})
                shutil.rmtree(folder)
            else:
                rows.append({"killed_at_s": round(moment, 2), "equal": None})
            print(f"kill {number + 1}: {rows[-1]}", flush=True)
    compared = sum(row["equal"] is not None for row in rows)
    result = {"kills": options.kills, "stores_compared": compared, "stores_equal": equal}
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps({**result, "rows": rows}, indent=1) + "\n")
    sys.exit(0 if equal == compared > 0 else 1)


if __name__ == "__main__":
    main()
