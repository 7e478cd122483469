"""Disks that are full, at a random byte, and results that may not be written.

Real ones: file systems in memory, in a mount namespace of the drill's own process.
"""

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path
from random import Random

from tests.drills.field import BEFORE, PYTHON, Field, Place, Said, outcome, run_forked

NEWNS, PRIVATE, READ_ONLY, REMOUNT = 0x20000, 0x44000, 1, 32  # <sched.h>, <sys/mount.h>
LARGE = 512 << 20


def may_mount() -> bool:
    """Whether this process may have mounts of its own."""
    return (
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs drill /mnt"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


def store_write(field: Field, folder: Path, rng: Random) -> dict:
    """No room for all of a group of the store."""
    room = rng.randrange(_bytes(field.after("warp").results / "patches.zarr"))
    return _full(field, folder, "warp", "fetch", room)


def checkpoint(field: Field, folder: Path, rng: Random) -> dict:
    """No room for all of a checkpoint: the first, or one beside an earlier one."""
    size = (field.in_training.results / ".partial" / "train" / "checkpoint.pt").stat().st_size
    return _full(field, folder, "train", "publish", rng.randrange(2 * size))


def embedding(field: Field, folder: Path, rng: Random) -> dict:
    """No room for all token grids and maps."""
    results = field.after("embed").results
    size = _bytes(results / "embeddings.zarr") + _bytes(results / "maps")
    return _full(field, folder, "embed", "train", rng.randrange(size))


def read_only(field: Field, folder: Path, rng: Random) -> dict:
    """Results on a disk that is read-only: a command of `jaisp`, or Snakemake."""
    stage = rng.choice([*BEFORE, "snakemake"])
    expected = "embed" if stage == "snakemake" else stage
    place = field.copy(BEFORE[expected], folder)
    failed, resumed = _within(place, stage, None)
    return outcome(stage, failed, resumed, field.after(expected).checksums())


def _full(field: Field, folder: Path, stage: str, before: str, room: int) -> dict:
    place = field.copy(before, folder)
    failed, resumed = _within(place, stage, room)
    done = f"{stage}, {room} bytes left"
    return outcome(done, failed, resumed, field.after(stage).checksums())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _within(place: Place, stage: str, room: int | None) -> tuple[Said, dict[str, str]]:
    """A stage on a disk with so much room, or a read-only one, and again on one with plenty: how
    the first try ended, and the checksums after the second."""
    process = PYTHON.Process(target=_drill, args=(place.folder, stage, room))
    process.start()
    process.join()
    found = json.loads((place.folder / "found.json").read_text())
    assert found["again"]["status"] == 0, found["again"]["lines"][-30:]
    return Said(**found["failed"]), found["checksums"]


def _drill(folder: Path, stage: str, room: int | None) -> None:
    place, results = Place(folder), folder / "results"
    _call(ctypes.CDLL(None, use_errno=True).unshare, NEWNS)
    _mount("/", None, PRIVATE, "")
    plenty = folder / "plenty"
    results.rename(plenty)
    results.mkdir()
    _mount(results, "tmpfs", 0, f"size={LARGE}")
    shutil.copytree(plenty, results, dirs_exist_ok=True)
    if room is None:
        _mount(results, "tmpfs", REMOUNT | READ_ONLY, f"size={LARGE}")
    else:
        status = os.statvfs(results)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        _mount(results, "tmpfs", REMOUNT, f"size={used + room}")
    failed = _run(place, stage)
    _mount(results, "tmpfs", REMOUNT, f"size={LARGE}")
    again = _run(place, stage)
    found = {"failed": failed.__dict__, "again": again.__dict__, "checksums": place.checksums()}
    (folder / "found.json").write_text(json.dumps(found))


def _run(place: Place, stage: str) -> Said:
    if stage == "snakemake":
        return place.said(place.start_snakemake("embed").wait())
    return run_forked(place.folder, (stage,))


def _mount(target: Path | str, kind: str | None, flags: int, options: str) -> None:
    mount = ctypes.CDLL(None, use_errno=True).mount
    name = None if kind is None else kind.encode()
    _call(mount, b"drill", str(target).encode(), name, flags, options.encode())


def _call(function, *arguments) -> None:
    """A function of the C library, whose failure is an OSError."""
    flags = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if function(*flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(arguments))
