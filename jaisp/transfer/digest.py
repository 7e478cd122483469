"""The digest of a file that grows."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jaisp.digest import Digest

_pool = ThreadPoolExecutor(thread_name_prefix="digest")


class Growing:
    """The digest of a file that others append to, taken in another thread while they do.

    The file is read, not what is written to it: so what came in an earlier run is counted too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = Digest()
        self._work: Future[None] | None = None

    def follow(self) -> None:
        """Count what has come and sync it, so that little is left to do at the end; at once,
        unless that is being done already."""
        if self._work is None or self._work.done():
            self._work = _pool.submit(self._count, is_growing=True)

    def finish(self) -> Digest:
        """The digest of all of it. Raises OSError."""
        if self._work is not None:
            self._work.result()
        self._count(is_growing=False)
        return self._digest

    def _count(self, is_growing: bool) -> None:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._digest.length)
            self._digest.read(file, whole_blocks=is_growing)
            if is_growing:
                os.fsync(file.fileno())
