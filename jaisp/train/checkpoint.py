"""A training run on disk: written whole, and gone on with from the same step."""

import logging
from pathlib import Path
from typing import Any

import torch

from jaisp.files import atomic_write

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) atomically; `key` says which run it belongs to."""
    with atomic_write(path) as temporary:
        torch.save({"key": key, **state}, temporary)


def read_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state to go on from, or None when there is none, or one of another run."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a file that it can't read
        log.warning("%s: unreadable (%s); training starts anew", path, type(error).__name__)
        return None
    if state.pop("key", None) != key:
        log.info("the checkpoint is of another config or store; training starts anew")
        return None
    return state
