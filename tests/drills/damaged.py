"""Bytes that flip on the disk, without a trace in times or lengths, and a group that is removed."""

import os
import shutil
from pathlib import Path
from random import Random

from tests.drills.field import BEFORE, Field, Place, outcome

READERS = ("train", "embed", "evaluate")


def shard(field: Field, folder: Path, rng: Random) -> dict:
    """A byte of a shard, after publishing; what reads the store, then what its line says."""
    stage = rng.choice(READERS)
    place = field.copy(BEFORE[stage], folder)
    array = rng.choice(("flux", "noise", "mask", "*"))
    files = (place.results / "patches.zarr" / "field").glob(f"*/{array}/c/**/*")
    done = flip(rng.choice(sorted(path for path in files if path.is_file())), place, rng)
    return _mended(field, place, stage, done, ("warp", "publish"))


def checkpoint(field: Field, folder: Path, rng: Random) -> dict:
    """A byte of a checkpoint of a training that was killed; the same command again."""
    place = Place(folder)
    shutil.copytree(field.in_training.folder, folder, dirs_exist_ok=True)
    path = place.results / ".partial" / "train" / "checkpoint.pt"
    return _mended(field, place, "train", flip(path, place, rng), ())


def model(field: Field, folder: Path, rng: Random) -> dict:
    """A byte of the trained model."""
    stage = rng.choice(("embed", "evaluate"))
    place = field.copy(BEFORE[stage], folder)
    name = rng.choice(("model.safetensors", "model.safetensors", "config.json"))
    done = flip(place.results / "model" / name, place, rng)
    return _mended(field, place, stage, done, ("train",))


def tile(field: Field, folder: Path, rng: Random) -> dict:
    """A byte of a tile in the cache, after it was fetched and verified."""
    place = field.copy("fetch", folder)
    done = flip(rng.choice(sorted((place.folder / "cache").rglob("*.fits"))), place, rng)
    return _mended(field, place, "warp", done, ("fetch",))


def removed_group(field: Field, folder: Path, rng: Random) -> dict:
    """A group of the store, or one file of it, gone after publishing."""
    stage = rng.choice(READERS)
    place = field.copy(BEFORE[stage], folder)
    group = rng.choice(sorted((place.results / "patches.zarr" / "field").iterdir()))
    while not group.is_dir():
        group = rng.choice(sorted(group.parent.iterdir()))
    shards = sorted(group.glob("*/c/0/0/0/0"))
    gone = rng.choice((group, group, rng.choice(shards)))
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    done = f"{gone.relative_to(place.results)} removed"
    return _mended(field, place, stage, done, ("warp", "publish"))


def flip(path: Path, place: Place, rng: Random) -> str:
    """Change one byte; returns what was done."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    offset = rng.randrange(len(content))
    content[offset] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"byte {offset} of {path.relative_to(place.folder)}"


def _mended(field: Field, place: Place, stage: str, done: str, redo: tuple[str, ...]) -> dict:
    """Run what meets the damage; where it ends in a line, do what that says and run it again."""
    first = place.run(stage)
    if first.status:
        for again in (*redo, stage):
            said = place.run(again)
            assert said.status == 0, (done, stage, again, first.lines[-5:], said.lines[-30:])
    expected = field.after(stage).checksums()
    return outcome(f"{done}, then {stage}", first, place.checksums(), expected)
