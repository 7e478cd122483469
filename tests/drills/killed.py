"""Kill −9: of a job, of Snakemake, of one of the processes of a training."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.drills.field import BEFORE, Field, Place, Said, outcome, wait_until

STRETCHES = {"publish": ("fetch", "warp", "publish"), "embed": ("publish", "train", "embed")}


def job(field: Field, folder: Path, rng: Random) -> dict:
    """SIGKILL to `jaisp STAGE` at a random moment; the same command again."""
    stage = rng.choice(list(BEFORE))
    place = field.copy(BEFORE[stage], folder)
    moment = rng.uniform(0, field.seconds[stage])
    process = place.start(stage)
    process.join(moment)
    process.kill()
    process.join()
    assert process.exitcode is not None
    killed = place.said(process.exitcode) if moment > 0.1 else Said(process.exitcode, [])
    again = place.run(stage)
    assert again.status == 0, again.lines
    done = f"{stage}, {moment:.2f} s after its start"
    return outcome(done, killed, place.checksums(), field.after(stage).checksums())


def snakemake(field: Field, folder: Path, rng: Random) -> dict:
    """SIGKILL to Snakemake alone, whose jobs go on; at once the same command again."""
    target = rng.choice(list(STRETCHES))
    before, *stages = STRETCHES[target]
    expected = _undisturbed(field, target)
    place = field.copy(before, folder)
    process = place.start_snakemake(target)
    moment = rng.uniform(1, 3 + 2 * sum(field.seconds[stage] for stage in stages))
    try:
        time.sleep(moment)
        process.kill()
        killed = Said(process.wait(), [])
        second = place.start_snakemake(target)
        status = second.wait()
        assert status == 0, place.said(status).lines[-40:]
    finally:
        end_group(process)
    done = f"{target}, {moment:.1f} s after its start"
    return outcome(done, killed, place.checksums(), expected)


def _undisturbed(field: Field, target: str) -> dict[str, str]:
    """Checksums of what Snakemake makes when nothing happens to it.

    It gives a training as many threads as there are cores, and sums over other numbers of threads
    differ in their last digits: `jaisp train` by itself is no measure of it.
    """
    folder = field.folder / f"snakemake_{target}"
    place = Place(folder)
    if not folder.exists():
        place = field.copy(STRETCHES[target][0], folder)
        status = place.start_snakemake(target).wait()
        assert status == 0, place.said(status).lines[-40:]
    return place.checksums()


def rank(field: Field, folder: Path, rng: Random) -> dict:
    """SIGKILL to one of two processes that train together; the same command again."""
    expected, seconds = _together(field)
    place = field.copy("publish", folder)
    started = _train_together(place)
    try:
        wait_until(lambda: len(_ranks(started.pid)) == 2 or started.poll() is not None)
        moment = rng.uniform(0, seconds)
        time.sleep(moment)
        number = rng.choice((0, 1))
        victim = _ranks(started.pid).get(number)
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
        first = place.said(started.wait())
        again = _train_together(place)
        status = again.wait()
        assert status == 0, place.said(status).lines
    finally:
        end_group(started)
    done = f"process {number} of 2, {moment:.2f} s after both had begun"
    return outcome(done, first, place.checksums(), expected)


def _together(field: Field) -> tuple[dict[str, str], float]:
    """Checksums of an undisturbed training by two processes, and how long it takes."""
    if not hasattr(field, "together"):
        place = field.copy("publish", field.folder / "together")
        started = _train_together(place)
        wait_until(lambda: len(_ranks(started.pid)) == 2 or started.poll() is not None)
        began = time.monotonic()
        status = started.wait()
        assert status == 0, place.said(status).lines
        field.together = place.checksums(), time.monotonic() - began
    return field.together


def _train_together(place: Place) -> subprocess.Popen:
    command = [str(Path(sys.executable).with_name("jaisp")), "train", "--config", "config.yaml"]
    environment = {k: v for k, v in place.environment.items() if not k.startswith("SLURM_")}
    with (place.folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [*command, "--processes", "2", "--threads", "1"],
            cwd=place.folder,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def _ranks(parent: int) -> dict[int, int]:
    """Process numbers of what `parent` has started to train together, by rank."""
    found = {}
    for child in _descendants(parent):
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = dict(pair.partition(b"=")[::2] for pair in environment).get(b"RANK")
        if rank is not None:
            found.setdefault(int(rank), child)
    return found


def _descendants(parent: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{parent}/task").iterdir())
        children = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _descendants(child))]


def end_group(process: subprocess.Popen) -> None:
    """End what is left of a process group of ours."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
