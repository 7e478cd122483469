"""A training run on disk: written whole, and gone on with from the same step.

A checkpoint is a zip file. Torch writes a CRC-32 of every tensor there and compares none when it
reads: a byte that has flipped would be trained on. So they are compared here. A record that is
marked as a folder torch takes for read, and leaves in memory what was there before.
"""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from jaisp.files import atomic_write

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) atomically; `key` says which run it belongs to."""
    # Through a file of Python's own, whose errors say that a disk is full; torch's don't.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save({"key": key, **state}, file)


def read_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state to go on from, or None when there is none, a damaged one, or one of another run."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as records:
            if (damaged := records.testzip()) is not None:
                raise zipfile.BadZipFile(f"CRC of {damaged}")
            if any(record.external_attr for record in records.infolist()):
                raise zipfile.BadZipFile("a tensor's record is marked as a folder")
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a file that it can't read
        log.warning("%s: unreadable (%s); training starts anew", path, type(error).__name__)
        return None
    if state.pop("key", None) != key:
        log.info("the checkpoint is of another config, store or code; training starts anew")
        return None
    return state
