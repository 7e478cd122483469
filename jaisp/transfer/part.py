"""A file that is on its way: what has come so far, and of what it is a part."""

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jaisp.digest import Digest
from jaisp.files import open_to_append
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
    """`NAME.part` and, in `NAME.json`, a note of what it is a part of.

    What it is of is written before the first byte, so that a killed process leaves a part that is
    known, or nothing. Nothing is synced on the way, which a killed process doesn't mind: the kernel
    has its bytes. Of a machine that went down nobody knows which bytes reached the disk, so the
    note also says under which start of the machine it was written, and a part of an earlier one is
    begun anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self.notes = path.with_name(f"{path.name}.json")
        self._growing = Growing(self.path)

    @property
    def size(self) -> int:
        """Bytes that have come."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def origin(self, address: str) -> Origin | None:
        """What the part is of, where it can be gone on with from this address."""
        known = self._known(address) if self.size else None
        return known if known is not None and known.validator else None

    def is_whole(self, address: str) -> bool:
        """Whether all of it has come, as when a process was killed while it verified."""
        known = self._known(address) if self.path.is_file() else None
        return known is not None and known.length is not None and known.length == self.size

    def _known(self, address: str) -> Origin | None:
        try:
            note = next(note for note in read_notes(self.notes) if "origin" in note)
            known = Origin(**note["origin"])
        except (StopIteration, TypeError):
            return None
        went_down = note.get("machine") == platform.node() and note.get("start") != machine_start()
        return known if known.address == address and not went_down else None

    def begin(self, origin: Origin) -> None:
        """Forget what has come; what follows is of `origin`."""
        self._forget_bytes()
        note = {"origin": asdict(origin), "machine": platform.node(), "start": machine_start()}
        add_note(self.notes, note, anew=True)

    def take(self, piece: memoryview, start: int) -> None:
        """Count what was just written at `start`."""
        self._growing.take(piece, start)

    def follow(self) -> None:
        """Take the digest of what has come, and sync it, while more comes."""
        self._growing.follow()

    def digest(self) -> Digest:
        """The checksum and the sums of all that has come."""
        return self._growing.finish(self.size)

    def sync(self) -> None:
        """See to it that the bytes are on the disk."""
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def discard(self) -> None:
        """Forget all of it: bytes first, so that none are left of which nothing is known."""
        self._forget_bytes()
        with suppress(FileNotFoundError):
            os.truncate(self.notes, 0)  # not unlinked: whoever has it open holds the file's lock

    def _forget_bytes(self) -> None:
        self._growing = Growing(self.path)
        self.path.unlink(missing_ok=True)

    def finish(self, final: Path) -> None:
        """Put the whole file where it belongs."""
        try:
            os.replace(self.path, final)
        except FileNotFoundError:
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.path, final)


def read_notes(path: Path) -> list[dict[str, Any]]:
    """What has been noted of a file, the oldest first; what can't be read was not."""
    try:
        with path.open("rb", buffering=0) as file:
            text = file.read().decode("utf-8")
    except (OSError, ValueError):
        return []
    found = []
    # One note may stand on many lines: so were they written once.
    with suppress(ValueError):
        found.append(json.loads(text))
    for line in [] if found else text.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [note for note in found if isinstance(note, dict)]


def add_note(path: Path, content: Mapping[str, Any], anew: bool = False) -> None:
    """Add a line of JSON, at once, but not synced: nobody takes a note's word for bytes.

    An entry is held against the checksum of its file before it counts, and of a part's origin see
    `Part`; one sync a file, of the bytes themselves, is what is needed. One file holds all notes,
    and its lock too, since making and removing files is what costs most of a small one. anew: in
    place of all that was noted.
    """
    # A line of its own even after one that was cut.
    line = f"\n{json.dumps(content, sort_keys=True)}\n"
    with open_to_append(path, anew) as file:
        os.write(file, line.encode())


@cache
def machine_start() -> str:
    """What tells one start of this machine from another; "" where it doesn't say."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
