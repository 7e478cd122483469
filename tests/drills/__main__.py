"""All drills, or some, so many times each; to a JSON file and a page made from it.

python -m tests.drills --repetitions 10 --seed 1 --out docs/drills.json [--only job rank …]

Ends with status 1 unless every repetition ends in equal results, and every command that failed has
said so in one clear line. Drills that are left out keep what the file says of them.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from random import Random

from tests.cluster.slurm import slurm
from tests.drills.all import DRILLS, lacking
from tests.drills.field import Field
from tests.drills.page import page


def repeat(name: str, field: Field, folder: Path, repetitions: int, seed: int) -> Iterator[dict]:
    """One drill, so many times."""
    for number in range(repetitions):
        own = folder / f"{name}{number}"
        began = time.monotonic()
        try:
            row = DRILLS[name].run(field, own, Random(f"{name} {seed} {number}"))
        except Exception:  # the others are told of, too
            row = {"status": None, "line": None, "equal": False, "said": traceback.format_exc()}
        shutil.rmtree(own, ignore_errors=True)
        print(f"{name} {number + 1}, {time.monotonic() - began:.0f} s: {row}", flush=True)
        yield row


def write(found: dict[str, dict], path: Path | None) -> None:
    """What was found so far, and its page."""
    if path is not None:
        ordered = {name: found[name] for name in DRILLS if name in found}
        path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
        path.with_suffix(".md").write_text(page(ordered))


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=DRILLS, default=list(DRILLS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        field = Field(base / "field")
        for name in options.only:
            reason = lacking(name)
            if reason:
                print(f"{name}: skipped: {reason}", flush=True)
                continue
            needs_slurm = DRILLS[name].needs == "slurm"
            with slurm(base / f"slurm.{name}", nodes=2) if needs_slurm else nullcontext():
                known[name] = {"failure": DRILLS[name].failure, "seed": options.seed, "rows": []}
                for row in repeat(name, field, base, options.repetitions, options.seed):
                    known[name]["rows"].append(json.loads(json.dumps(row).replace(str(base), "")))
                    write(known, options.out)
    rows = [row for name in options.only for row in known.get(name, {"rows": []})["rows"]]
    good = [row for row in rows if row["equal"] and "said" not in row]
    print(f"{len(good)} of {len(rows)} repetitions ended well")
    sys.exit(0 if len(good) == len(rows) > 0 else 1)


if __name__ == "__main__":
    main()
