"""The checksum of a file that grows."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

PIECE = 256 << 10  # bytes read at a time: what a core's own cache holds

_pool = ThreadPoolExecutor(thread_name_prefix="digest")


class Growing:
    """The SHA-256 of a file that others append to, taken in another thread while they do.

    The file is read, not what is written to it: so what came in an earlier run is counted too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sha256 = hashlib.sha256()
        self._length = 0
        self._work: Future[None] | None = None

    def follow(self) -> None:
        """Count what has come and sync it, so that little is left to do at the end; at once,
        unless that is being done already."""
        if self._work is None or self._work.done():
            self._work = _pool.submit(self._count, sync=True)

    def finish(self) -> str:
        """The checksum of all of it, as hexadecimal digits. Raises OSError."""
        if self._work is not None:
            self._work.result()
        self._count(sync=False)
        return self._sha256.hexdigest()

    def _count(self, sync: bool) -> None:
        piece = memoryview(bytearray(PIECE))
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._length)
            while count := file.readinto(piece):
                self._sha256.update(piece[:count])
                self._length += count
            if sync:
                os.fsync(file.fileno())
