"""A file that is on its way: what has come so far, and of what it is a part."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from jaisp.files import read_json, write_json


@dataclass(frozen=True)
class Origin:
    """What a server said of the file that a part is of.

    validator: a strong ETag, or when it was last modified: only with one can a part be gone on
    with. length: bytes in all; None where it wasn't told.
    """

    address: str
    validator: str | None
    length: int | None


class Part:
    """`NAME.part` and, beside it, `NAME.part.json`, which says what it is a part of.

    What it is of is written before the first byte, so that a killed process leaves a part that is
    known, or nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._about = self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self, address: str) -> Origin | None:
        """What the part is of, where it can be gone on with from this address."""
        try:
            known = Origin(**read_json(self._about))
        except (OSError, ValueError, TypeError):
            return None
        return known if known.address == address and known.validator and self.size else None

    def begin(self, origin: Origin) -> None:
        """Forget what has come; what follows is of `origin`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.discard()
        write_json(self._about, asdict(origin))
        self.path.touch()

    def sync(self) -> None:
        """See to it that the bytes are on the disk."""
        with self.path.open("rb") as handle:
            os.fsync(handle.fileno())

    def discard(self) -> None:
        """Forget all of it: bytes first, so that none are left of which nothing is known."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, final: Path) -> None:
        """Put the whole file where it belongs."""
        os.replace(self.path, final)
        self._about.unlink(missing_ok=True)
