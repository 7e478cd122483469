"""What a server answers, taken as it comes: its head, and its body, which goes to a part."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from time import monotonic

from jaisp.digest import BLOCK, PIECE
from jaisp.errors import TileError
from jaisp.transfer.address import host_of
from jaisp.transfer.part import Origin, Part

# What has come is written when it is so many bytes, or so many seconds after the last: threads of
# several transfers wait for one another about each call.
HELD = 4 * PIECE
HELD_S = 0.1
TELL = 1 << 20  # bytes, between two words of how far it is
# Bytes between two of which the checksum of a large file goes on, in another thread; to a file of
# fewer than these there is not enough for two threads to do.
FOLLOW = 64 << 20
TO_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
SPARE = 64 << 20  # bytes that stay free on the disk
MOST_SAID = 64 << 10  # bytes that are heard of what comes instead of a file
GOOD = {200, 206}

_buffers = threading.local()


class TryAgain(TileError):
    """It failed, and may not the next time. after: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class NoRanges(TileError):
    """The server sends nothing but whole files, or the file has no such range."""


# Told how many bytes of a file are here, and how many it has, where the server says so.
Watch = Callable[[int, int | None], None]


def unwatched(here: int, length: int | None) -> None:
    """Nobody wants to know how far a file is."""


@dataclass(frozen=True)
class Limits:
    """What a file may be at most, and how long a server may send nothing, s.

    expected_bytes: its length, where the archive told it. private_hosts: those that may lie in a
    private network, the file's own among them where the config names it.
    """

    most_bytes: int
    timeout_s: float
    expected_bytes: int | None = None
    private_hosts: Collection[str] = ()


@dataclass
class Answer:
    """The head of a server's answer. headers: names in lower case, the last of each."""

    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def take(self, line: bytes) -> None:
        """One line of the head; a status line begins a new one."""
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            _, status, *reason = text.split(" ", 2)
            self.status, self.headers = int(status), {}
            # It stands in logs and on terminals.
            self.reason = "".join(sign for sign in "".join(reason) if sign.isprintable())[:60]
        elif ":" in text:
            name, _, value = text.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    @property
    def length(self) -> int | None:
        """Bytes that are to come; None where they aren't told, or are packed."""
        told = self.headers.get("content-length", "")
        return int(told) if told.isdigit() and not self.is_packed else None

    @property
    def is_packed(self) -> bool:
        """Whether its bytes are not the file's."""
        return self.headers.get("content-encoding", "identity").lower() != "identity"


class Body:
    """What takes an answer's body as it comes, and writes it to the part.

    problem: why it stopped the transfer; libcurl knows no exceptions. said: what came instead of a
    file: how a failure or a redirect explains itself.
    """

    def __init__(
        self,
        address: str,
        part: Part,
        origin: Origin | None,
        limits: Limits,
        watch: Watch,
        span: tuple[int, int] | None = None,
    ) -> None:
        self.address, self.part, self.limits, self.span = address, part, limits, span
        self.answer = Answer()
        self.problem: Exception | None = None
        self.said = b""
        self._origin = origin
        self._watch = watch
        self._file: int | None = None
        self._length: int | None = None
        self._received = self._told = self._followed = 0
        self._held, self._filled = _buffer(), 0
        self._due = 0.0  # when what is held is to be written, s

    def take(self, chunk: bytes) -> int | None:
        """None for all of it; another number than was given stops the transfer.

        Called for every 16 KB: it is kept short, as threads of several transfers wait for one
        another here.
        """
        end = self._filled + len(chunk)
        if self._file is not None and end <= HELD and monotonic() < self._due:
            self._held[self._filled : end] = chunk
            self._filled = end
            return None
        try:
            if self._file is None:
                if self.answer.status not in GOOD:
                    self.said += chunk
                    return None if len(self.said) < MOST_SAID else -1
                self._file = self._open()
            self._write(whole_blocks=True)
            self._held[self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)
        except (TileError, OSError) as error:
            self.problem = error
            return -1
        return None

    def _open(self) -> int:
        _begin(self.answer, self.address, self.part, self._origin, self.limits, self.span)
        self._received = self._told = self.part.size
        if self.answer.length is not None:
            self._length = self._received + self.answer.length
        self._watch(self._received, self._length)
        self._due = monotonic() + HELD_S
        return os.open(self.part.path, TO_APPEND, 0o666)

    def _write(self, whole_blocks: bool = False) -> None:
        """What is held goes to the disk together, and into the checksum of a small file; where
        `whole_blocks`, what is left of these waits for what comes next."""
        assert self._file is not None
        # Let go first: what a full disk took a part of must not be written again.
        filled, self._filled = self._filled, 0
        end = filled - filled % BLOCK if whole_blocks else filled
        start = self._received
        while self._received - start < end:
            # A disk that is nearly full takes some of it, and says so the next time.
            piece = self._held[self._received - start : end]
            self._received += os.write(self._file, piece)
        if self._length is not None and self._length < FOLLOW:
            self.part.take(self._held[:end], start)
        self._filled = filled - end
        self._held[: self._filled] = self._held[end:filled]
        self._due = monotonic() + HELD_S
        if self._received - self._told >= TELL:
            self._tell()

    def _tell(self) -> None:
        self._told = self._received
        if self._received > self.limits.most_bytes:
            self.part.discard()
            raise TileError("longer than fetch.most_bytes, or than what was asked for; refused")
        self._watch(self._received, self._length)
        if self._received - self._followed >= FOLLOW:
            self._followed = self._received
            self.part.follow()

    def close(self) -> None:
        """Write what is left; a full disk is said in one line."""
        if self._file is None:
            return
        try:
            self._write()
        except OSError as error:
            raise TileError(f"{error.filename or 'the cache'}: {error.strerror or error}") from None
        finally:
            os.close(self._file)

    def finish(self) -> None:
        """All of it has come."""
        if self._file is None:
            self._file = self._open()  # an empty body
            self.close()
        self._tell()


def _buffer() -> memoryview:
    """This thread's own, kept: memory that is new with each file costs as much as receiving it."""
    if not hasattr(_buffers, "held"):
        _buffers.held = memoryview(bytearray(HELD))
    return _buffers.held


def _begin(
    answer: Answer,
    address: str,
    part: Part,
    origin: Origin | None,
    limits: Limits,
    span: tuple[int, int] | None,
) -> None:
    """Make the part ready for what is to come, or raise."""
    if answer.status == 206 and origin is None and span is not None:
        part.begin(_origin_of_span(answer, address, span))
    elif answer.status == 206:
        _check_range(answer, address, part, origin, span)
    elif span is None:
        part.begin(_origin_of(answer, address))
    elif origin is not None:
        part.discard()
        raise TryAgain(f"{host_of(address)}: the file has changed on the way; begun anew")
    else:
        raise NoRanges(f"{host_of(address)} sends no ranges")
    if answer.length is not None:
        check_room(part, answer.length, limits)


def check_room(part: Part, coming: int, limits: Limits) -> None:
    """Raise where so many bytes more are too many: for what the archive said, for the most that a
    file may have, or for the disk."""
    total = part.size + coming
    if limits.expected_bytes is not None and total != limits.expected_bytes:
        part.discard()
        raise TryAgain(f"{total} bytes long, not {limits.expected_bytes} as the archive said")
    if total > limits.most_bytes:
        part.discard()
        raise TileError(
            f"{total} bytes long, more than fetch.most_bytes, or than what was asked for; refused"
        )
    free = shutil.disk_usage(part.path.parent).free
    if coming + SPARE > free:
        raise TileError(
            f"{part.path.parent}: {free / 1e9:.1f} GB are left for {total / 1e9:.1f} GB; make room "
            "on this disk, or name another folder with JAISP_CACHE"
        )


def _origin_of(answer: Answer, address: str) -> Origin:
    tag, modified = answer.headers.get("etag"), answer.headers.get("last-modified")
    validator = tag if tag and not tag.startswith("W/") else modified
    # A packed answer's bytes are not the file's: it can't be gone on with.
    return Origin(address, None if answer.is_packed else validator, answer.length)


def _origin_of_span(answer: Answer, address: str, span: tuple[int, int]) -> Origin:
    """Of a span, which ends where its file does."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("content-range", ""))
    if found is None or int(found[1]) != span[0] or int(found[2]) > span[1]:
        raise TryAgain(f"{host_of(address)} sends another part than was asked for")
    return replace(_origin_of(answer, address), length=int(found[2]) - span[0] + 1)


def _check_range(
    answer: Answer,
    address: str,
    part: Part,
    origin: Origin | None,
    span: tuple[int, int] | None,
) -> None:
    """The rest must be of the same file, and begin where the part ends."""
    if origin is None:
        raise TryAgain(f"{host_of(address)} sends a part that nobody asked for")
    first = 0 if span is None else span[0]
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""))
    # A server may not know If-Range (DaCHS), and send the rest of another file.
    validator = origin.validator or ""
    name = "etag" if validator.startswith('"') else "last-modified"
    is_other = answer.headers.get(name, validator) != validator
    begins = found is not None and int(found[1]) == first + part.size
    # A span's length is not its file's.
    told = None if found is None or found[2] == "*" or span is not None else int(found[2])
    if is_other or not begins or (told is not None and origin.length not in (None, told)):
        part.discard()
        raise TryAgain(f"{host_of(address)}: the file has changed on the way; begun anew")
