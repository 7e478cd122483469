"""The digest of a file that grows."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jaisp.digest import BLOCK, Digest

# Checksums take a processor each: more of them at a time only wait for one another.
_reading = threading.BoundedSemaphore(os.cpu_count() or 1)
_pool = ThreadPoolExecutor(thread_name_prefix="digest")


class Growing:
    """The digest of a file that is appended to, taken while that is done.

    Of a small file each piece is counted as it is written; a large one is read in another thread.
    What was counted neither way, as of an earlier run, is read at the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = Digest()
        self._work: Future[None] | None = None

    def take(self, piece: memoryview, start: int) -> None:
        """Count what was just written at `start`, while it is in the processor's cache: where all
        before it is counted, and as far as it is whole blocks."""
        if start == self._digest.length:
            self._digest.take(piece[: len(piece) - len(piece) % BLOCK])

    def follow(self) -> None:
        """Count what has come and sync it, so that little is left to do at the end; at once,
        unless that is being done already."""
        if self._work is None or self._work.done():
            self._work = _pool.submit(self._count, is_growing=True)

    def finish(self, length: int) -> Digest:
        """The digest of all of it, so many bytes. Raises OSError."""
        if self._work is not None:
            self._work.result()
        if self._digest.length != length:
            with _reading:
                self._count(is_growing=False)
        return self._digest

    def _count(self, is_growing: bool) -> None:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._digest.length)
            self._digest.read(file, whole_blocks=is_growing)
            if is_growing:
                os.fsync(file.fileno())
