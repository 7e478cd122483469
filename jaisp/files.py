"""Files that are never half-written: temporary name, verify, rename; locks; receipts; problems."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaisp.config import Config
from jaisp.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; at success sync it and rename it to `path`.

    A reader sees the old file or the new one, never a part. The temporary name carries the
    process number, so that two writers don't meet; the later rename wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: writers such as astropy and matplotlib choose a format by it.
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        # Of a write that fails, as on a full disk, the system doesn't say in which file.
        for cause in (error, error.__context__):
            if isinstance(cause, OSError) and cause.errno and cause.filename is None:
                cause.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(partial: Path, final: Path) -> None:
    """Rename the finished folder `partial` to `final`; an older one is moved aside, then removed.

    Killed between two steps, the run has no folder rather than a mixed one, and the job's
    receipt is missing, so that the job runs again.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    old = partial.with_name(f".old.{partial.name}")
    remove_folder(old)
    if final.exists():
        os.rename(final, old)
    os.rename(partial, final)
    remove_folder(old)


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` atomically, as UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON atomically, keys sorted, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_sha256(path: Path) -> str:
    """One SHA-256 over the names and bytes of every file below a folder."""
    total = hashlib.sha256()
    top = str(path)
    # By the parts of the names, not by their text: a folder comes before what stands beside it.
    names = [
        (*folder[len(top) :].split(os.sep)[1:], name)
        for folder, _, files in os.walk(top)
        for name in files
    ]
    for name in sorted(names):
        total.update(f"{'/'.join(name)} {sha256(os.path.join(top, *name))}\n".encode())
    return total.hexdigest()


def partial_dir(config: Config) -> Path:
    """Where jobs build what they rename into place: on the same file system as the results."""
    path = config.results / ".partial"
    path.mkdir(parents=True, exist_ok=True)
    return path


def receipt_path(config: Config, stage: str, name: str) -> Path:
    """Where the receipt of one job stands."""
    return config.results / "receipts" / stage / f"{name}.json"


def write_receipt(config: Config, stage: str, name: str, content: dict) -> Path:
    """Announce that a job is done: ids, counts and checksums, no times."""
    path = receipt_path(config, stage, name)
    write_json(path, content)
    return path


def batch_receipt(receipts: list[dict]) -> dict:
    """What a job's receipt says: of one cell all of it, of several their checksums and counts."""
    if len(receipts) == 1:
        return receipts[0]
    left_out = ("survey", "cell", "hash", "tiles", "bands", "shape")
    return {
        "survey": receipts[0]["survey"],
        "cells": {
            receipt["cell"]: {k: v for k, v in receipt.items() if k not in left_out}
            for receipt in receipts
        },
    }


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold `path` as a lock; the kernel gives it back if the process dies.

    While another process holds it, say so and wait.
    """
    path = Path(path)
    with open_to_append(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: held by another job; waiting for it to end", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def open_to_append(path: Path, anew: bool = False) -> Iterator[int]:
    """The descriptor of a file that is added to, or locked; its folder is made where there is none.

    anew: whether what is in it is forgotten. A descriptor, as opening a file object takes four
    calls of the system, and threads wait for one another about each.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if anew else 0)
    try:
        file = os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def hold_run(results: Path) -> int:
    """Take the lock of a whole run for as long as this process lives.

    Returns the file descriptor, which must stay open. Raises UserError when another process
    holds the run.
    """
    results.mkdir(parents=True, exist_ok=True)
    # Jobs inherit no lock: the descriptor is close-on-exec, so a killed parent frees the run.
    descriptor = os.open(results / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"{results}: another run is working here; wait for it to end, or give this one "
            "another name (`run:` in the config)"
        ) from None
    return descriptor


def record_problem(
    config: Config, stage: str, survey: str, band: str, tile: str, reason: str
) -> None:
    """Set a bad tile's reason down; the run goes on and the report lists it."""
    entry = {"stage": stage, "survey": survey, "band": band, "tile": tile}
    key = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]
    one_line = " ".join(reason.split())
    write_json(config.results / ".problems" / f"{key}.json", {**entry, "reason": one_line})


def clear_problems(config: Config, stage: str, survey: str | None = None) -> None:
    """Forget what an earlier run of a stage (of one survey) set down."""
    for path in (config.results / ".problems").glob("*.json"):
        entry = read_json(path)
        if entry["stage"] == stage and survey in (None, entry["survey"]):
            path.unlink(missing_ok=True)


def read_problems(config: Config) -> list[dict]:
    """Every tile that was set aside, sorted by stage, survey, band and tile."""
    found = [read_json(path) for path in (config.results / ".problems").glob("*.json")]
    return sorted(found, key=lambda p: (p["stage"], p["survey"], p["band"], p["tile"]))


def write_problems(config: Config) -> int:
    """Gather the problems into results/RUN/problems.ecsv; returns how many there are."""
    from astropy.table import Table

    names = ("stage", "survey", "band", "tile", "reason")
    problems = read_problems(config)
    table = Table({name: [p[name] for p in problems] for name in names}, dtype=[str] * len(names))
    with atomic_write(config.results / "problems.ecsv") as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
    return len(problems)
