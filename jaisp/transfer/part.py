"""A file that is on its way: what has come so far, and of what it is a part."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaisp.digest import Digest
from jaisp.files import read_json
from jaisp.transfer.digest import Growing

BOOT = Path("/proc/sys/kernel/random/boot_id")


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
    known, or nothing. Nothing is synced on the way, which a killed process doesn't mind: the kernel
    has its bytes. Of a machine that went down nobody knows which bytes reached the disk, so the
    note also says under which start of the machine it was written, and a part of an earlier one is
    begun anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._about = self.path.with_name(f"{self.path.name}.json")
        self._growing = Growing(self.path)

    @property
    def size(self) -> int:
        """Bytes that have come."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def origin(self, address: str) -> Origin | None:
        """What the part is of, where it can be gone on with from this address."""
        known = self._known(address)
        return known if known is not None and known.validator and self.size else None

    def is_whole(self, address: str) -> bool:
        """Whether all of it has come, as when a process was killed while it verified."""
        known = self._known(address)
        return known is not None and known.length is not None and known.length == self.size

    def _known(self, address: str) -> Origin | None:
        try:
            note = read_json(self._about)
            known = Origin(**note["origin"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        went_down = note.get("machine") == platform.node() and note.get("start") != machine_start()
        return known if known.address == address and not went_down else None

    def begin(self, origin: Origin) -> None:
        """Forget what has come; what follows is of `origin`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.discard()
        note = {"origin": asdict(origin), "machine": platform.node(), "start": machine_start()}
        write_note(self._about, note)
        self.path.touch()

    def follow(self) -> None:
        """Take the digest of what has come, and sync it, while more comes."""
        self._growing.follow()

    def digest(self) -> Digest:
        """The checksum and the sums of all that has come."""
        return self._growing.finish()

    def sync(self) -> None:
        """See to it that the bytes are on the disk."""
        with self.path.open("rb") as handle:
            os.fsync(handle.fileno())

    def discard(self) -> None:
        """Forget all of it: bytes first, so that none are left of which nothing is known."""
        self._growing = Growing(self.path)
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, final: Path) -> None:
        """Put the whole file where it belongs."""
        os.replace(self.path, final)
        self._about.unlink(missing_ok=True)


def write_note(path: Path, content: Any) -> None:
    """Write JSON atomically, but not synced: nobody takes a note's word for bytes.

    An index is held against the checksum of its file before it counts, and of a part's note see
    `Part`; one sync a file, of the bytes themselves, is what is needed. Whoever writes one holds
    its file's lock, so that the temporary name may be the same each time, and none is left over.
    """
    temporary = path.with_name(f".partial.{path.name}")
    temporary.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


@cache
def machine_start() -> str:
    """What tells one start of this machine from another; "" where it doesn't say."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
