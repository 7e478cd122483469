"""Which windows of sky are encoded around tokens: as few tokens as can be, with all their margins.

Most of a small window is margin, which neighbouring windows share when they are encoded as one.
"""

import numpy as np
from jaxtyping import Int

LARGEST = 10_500  # tokens of a window, margins included: some hundred MB of pixels


def windows(
    tokens: Int[np.ndarray, "source 2"], squares: Int[np.ndarray, "source 2"], margin: int
) -> list[Int[np.ndarray, " member"]]:
    """Sources whose tokens are encoded together, window by window.

    tokens: row and column of each. squares: of sky, by row and column; those of one square stay
    together. margin: tokens around those asked for, on each side. Windows are joined, those first
    by which most is saved, as long as that leaves fewer tokens to encode.
    """
    which = np.unique(squares, axis=0, return_inverse=True)[1].ravel()
    members = [np.flatnonzero(which == number) for number in range(which.max(initial=-1) + 1)]
    boxes = np.array([_box(tokens[own]) for own in members]).reshape(-1, 4)
    while len(members) > 1:
        areas = _areas(boxes, margin)
        joint = _areas(_joined(boxes[:, None], boxes), margin)
        saved = areas[:, None] + areas - joint
        saved[(joint > LARGEST) | np.eye(len(boxes), dtype=bool)] = 0
        if saved.max() <= 0:
            break
        first, second = sorted(np.unravel_index(saved.argmax(), saved.shape))
        boxes[first] = _joined(boxes[first], boxes[second])
        members[first] = np.concatenate([members[first], members.pop(second)])
        boxes = np.delete(boxes, second, axis=0)
    return members


def _box(tokens: Int[np.ndarray, "source 2"]) -> Int[np.ndarray, "4"]:
    """First row and column, and those after the last."""
    return np.concatenate([tokens.min(axis=0), tokens.max(axis=0) + 1])


def _joined(first: Int[np.ndarray, "*any 4"], second: Int[np.ndarray, "*box 4"]) -> np.ndarray:
    low, high = np.minimum(first, second)[..., :2], np.maximum(first, second)[..., 2:]
    return np.concatenate([low, high], axis=-1)


def _areas(boxes: Int[np.ndarray, "*box 4"], margin: int) -> Int[np.ndarray, "*box"]:
    return np.prod(boxes[..., 2:] - boxes[..., :2] + 2 * margin, axis=-1)
