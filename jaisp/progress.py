"""Progress bars that are quiet where nobody watches."""

import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Item = TypeVar("Item")
Draw = Callable[[int, int], None]  # told of bytes that have come, and of those known to


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, drawing a bar on standard error when it is a terminal.

    `total` is needed only where `items` has no length.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


class Arrivals:
    """Bytes of files that come, several at a time: what is here of what is known to come.

    Bytes that were here before a file's first word are not counted, so that the rate is the
    network's.
    """

    def __init__(self, draw: Draw | None = None) -> None:
        self._drawn = draw
        self._lock = threading.Lock()
        self._begun: dict[Hashable, int] = {}
        self._here: dict[Hashable, int] = {}
        self._length: dict[Hashable, int] = {}

    def expect(self, file: Hashable, length: int) -> None:
        """A file is to come; 0 where nobody says how long it is."""
        with self._lock:
            self._length[file] = length

    def tell(self, file: Hashable, here: int, length: int | None) -> None:
        """So much of a file is here, of so much in all where that is known."""
        with self._lock:
            self._begun[file] = min(here, self._begun.get(file, here))
            self._here[file] = here
            self._length[file] = length or max(here, self._length.get(file, 0))
        self._draw()

    def drop(self, file: Hashable) -> None:
        """It needn't come, or won't."""
        with self._lock:
            for known in (self._begun, self._here, self._length):
                known.pop(file, None)
        self._draw()

    def counts(self) -> tuple[int, int]:
        """Bytes that have come, and those that are known to."""
        with self._lock:
            begun = sum(self._begun.values())
            return sum(self._here.values()) - begun, sum(self._length.values()) - begun

    def _draw(self) -> None:
        if self._drawn is not None:
            self._drawn(*self.counts())


@contextmanager
def drawn_bytes(description: str) -> Iterator[Draw | None]:
    """What draws bytes, rate and time left on standard error; None where it is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)

        def draw(here: int, known: int) -> None:
            progress.update(task, completed=here, total=known or None)

        yield draw


@contextmanager
def arriving(description: str) -> Iterator[Arrivals]:
    """Files of which bytes, rate and time left are drawn, while standard error is a terminal."""
    with drawn_bytes(description) as draw:
        yield Arrivals(draw)
