"""Jobs of a real Slurm: killed, and on nodes that are drained or lost."""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from tests.drills.field import Field, Place, Said, outcome, wait_until

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def killed_job(field: Field, folder: Path, rng: Random) -> dict:
    """SIGKILL to a training by Slurm; submitted again."""
    place = field.copy("publish", folder)
    job = _submit(place)
    moment = _wait_into(job, field, rng)
    _slurm("scancel", "--signal=KILL", *rng.choice((["--full"], [])), job)
    state = _wait_for_end(job)
    said = place.said(0 if state == "COMPLETED" else 1)
    failed = Said(-9 if _is_silent(said) else said.status, said.lines)
    state = _wait_for_end(_submit(place))
    assert state == "COMPLETED", place.said(0).lines
    done = f"train, {moment:.2f} s after its start"
    return outcome(done, failed, place.checksums(), field.after("train").checksums())


def drained_node(field: Field, folder: Path, rng: Random) -> dict:
    """The node of a training is drained, which lets it end; or is then lost, and the job goes back
    into the queue and to the other node."""
    place = field.copy("publish", folder)
    job = _submit(place)
    moment = _wait_into(job, field, rng)
    node = _field(job, "NodeList")
    is_lost = rng.random() < 0.5
    try:
        _slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=drill")
        if is_lost:
            _slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=drill")
        state = _wait_for_end(job)
    finally:
        _slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
    said = place.said(0 if state == "COMPLETED" else 1)
    restarts = _field(job, "Restarts")
    done = f"drained{' and lost' if is_lost else ''} {moment:.2f} s after the start of train, "
    done += f"started again {restarts} times"
    return outcome(done, said, place.checksums(), field.after("train").checksums())


def _submit(place: Place) -> str:
    """A batch script that trains; returns its number."""
    train = [str(Path(sys.executable).with_name("jaisp")), "train", "--config", "config.yaml"]
    command = shlex.join([*train, "--processes", "1", "--threads", "1"])
    sbatch = ["sbatch", "--parsable", "--requeue", "--output", "said.txt"]
    done = subprocess.run(
        [*sbatch, "--open-mode=truncate", "--wrap", command],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _wait_into(job: str, field: Field, rng: Random) -> float:
    """Wait for a random moment of a job."""
    wait_until(lambda: _field(job, "JobState") in ("RUNNING", *ENDED) or time.sleep(0.1))
    moment = rng.uniform(0, 4 + field.seconds["train"])
    time.sleep(moment)
    return moment


def _wait_for_end(job: str) -> str:
    wait_until(lambda: _field(job, "JobState") in ENDED or time.sleep(0.2))
    return _field(job, "JobState")


def _is_silent(said: Said) -> bool:
    """Whether its shell was killed too, so that nobody was left to say anything."""
    return said.status != 0 and not any(line.startswith("jaisp: ") for line in said.lines)


def _field(job: str, name: str) -> str:
    shown = _slurm("scontrol", "--oneliner", "show", "job", job)
    return dict(pair.partition("=")[::2] for pair in shown.split())[name]


def _slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
