"""What a training run tells of itself: a line every few steps."""

import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaisp.errors import UserError
from jaisp.files import remove_folder, write_text

log = logging.getLogger(__name__)


class History:
    """Lines of means over the steps since the line before: of what all steps tell, and of the
    terms of pairs across surveys and within one by themselves. `counts` are the pairs of each kind
    so far.

    Nothing in it is a time: a resumed run has the lines of an uninterrupted one.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self._recent: list[dict[str, Any]] = []

    def note(self, name: str, terms: dict[str, float], overall: dict[str, float]) -> None:
        """Add a step of the pairs `name`: what depends on the kind of pair, and what doesn't."""
        self.counts[name] += 1
        self._recent.append({"name": name, "terms": terms, "overall": overall})

    def close_line(self, step: int, more: dict[str, Any]) -> dict[str, Any]:
        """End the line of the steps noted so far with what else is known of it."""
        recent, self._recent = self._recent, []
        across = [entry["terms"] for entry in recent if entry["name"].startswith("surveys:")]
        within = [entry["terms"] for entry in recent if not entry["name"].startswith("surveys:")]
        line = {
            "step": step,
            "pairs": dict(sorted(self.counts.items())),
            **_means([entry["overall"] for entry in recent]),
            **{f"across_{name}": mean for name, mean in _means(across).items()},
            **{f"within_{name}": mean for name, mean in _means(within).items()},
        }
        self.lines.append(line | more)
        return self.lines[-1]

    def last(self, name: str) -> Any:
        """The newest value of a column, or None."""
        return next((line[name] for line in reversed(self.lines) if name in line), None)

    def write(self, path: Path) -> None:
        """Write all lines as JSON, one each."""
        write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"history": self.lines, "counts": dict(self.counts), "recent": self._recent}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self.lines, self.counts = state["history"], Counter(state["counts"])
        self._recent = state["recent"]


class Pace:
    """How fast a training goes: for the log alone."""

    def __init__(self) -> None:
        self._patches, self._since = 0, time.perf_counter()

    def add(self, patches: int) -> None:
        """Count a step's patches."""
        self._patches += patches

    def since_last(self) -> float:
        """Patches a second, counted anew from now on."""
        now = time.perf_counter()
        found = self._patches / max(now - self._since, 1e-9)
        self._patches, self._since = 0, now
        return found


class Board:
    """TensorBoard's curves of the steps after `done`; later points of an earlier try are hidden."""

    def __init__(self, folder: Path, done: int) -> None:
        writer = board_writer()
        if not done:
            remove_folder(folder)
        self._writer = writer(str(folder), purge_step=done + 1)

    def plot(self, line: dict[str, Any]) -> None:
        """Add a history line's numbers to the curves of their names."""
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what has not been written."""
        self._writer.close()


def board_writer() -> Any:
    """torch's writer of TensorBoard files, which needs an extra of this package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "train.tensorboard: TensorBoard is not installed; "
            "pip install -c constraints.txt -e '.[tensorboard]', or set it to false"
        ) from None
    return SummaryWriter


def _means(entries: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every column of entries that have the same ones."""
    names = entries[0] if entries else ()
    return {name: float(np.mean([entry[name] for entry in entries])) for name in names}
