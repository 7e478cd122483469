"""Two Snakemakes at once on the same results."""

import fcntl
import time
from pathlib import Path
from random import Random

from tests.drills.field import Field, outcome, wait_until
from tests.drills.killed import end_group


def two_snakemakes(field: Field, folder: Path, rng: Random) -> dict:
    """A second one started at a random moment of the first, which has to end undisturbed."""
    place = field.copy("fetch", folder)
    first = place.start_snakemake("publish")
    moment = rng.uniform(0, 2 * (field.seconds["warp"] + field.seconds["publish"]))
    try:
        # It takes its lock as soon as it has read the config.
        wait_until(lambda: is_held(place.results / ".lock") or first.poll() is not None)
        time.sleep(moment)
        (place.folder / "said.txt").rename(place.folder / "first.txt")
        second = place.start_snakemake("publish")
        said = place.said(second.wait())
        status = first.wait()
    finally:
        end_group(first)
    assert status == 0, (place.folder / "first.txt").read_text()[-3000:]
    done = f"{moment:.1f} s after the first had begun"
    done += "" if said.status else "; that had ended, and nothing was left to do"
    return outcome(done, said, place.checksums(), field.after("publish").checksums())


def is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
