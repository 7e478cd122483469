"""One try to get a file, or the rest of it, over HTTP."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from urllib.parse import urljoin

import certifi
import pycurl

from jaisp import __version__
from jaisp.digest import BLOCK
from jaisp.errors import TileError
from jaisp.transfer import s3
from jaisp.transfer.address import check_redirect, host_of, is_s3
from jaisp.transfer.part import Origin, Part
from jaisp.transfer.peer import keep_public

BUFFER = 512 << 10  # bytes
# What has come is written when it is so many pieces of 16 KB, as libcurl hands them over, or so
# many seconds after the last: threads of several transfers wait for one another about each call.
TOGETHER = 256
HELD_S = 0.1
TELL = 1 << 20  # bytes, between two words of how far it is
# Bytes between two of which the checksum of a large file goes on, in another thread; to a file of
# fewer than these there is not enough for two threads to do.
FOLLOW = 64 << 20
TO_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
CONNECT_S = 30
MOST_REDIRECTS = 5
SPARE = 64 << 20  # bytes that stay free on the disk
MOST_SAID = 64 << 10  # bytes that are heard of what comes instead of a file
# What a server answers when it may think otherwise later. IRSA answers 400 at random.
PASSING = {400, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 507, 520, 522, 524}
GOOD = {200, 206}
REDIRECTS = {301, 302, 303, 307, 308}
LACKING = {
    **dict.fromkeys(REDIRECTS, "leads elsewhere, and it is not said where"),
    **{401: "needs a credential", 403: "doesn't let us", 404: "is not there", 410: "is gone"},
}
# Whoever may not list a bucket isn't told what it lacks.
LACKING_IN_BUCKET = LACKING | {
    301: "is in another region; name it with fetch.s3_endpoint, https://s3.REGION.amazonaws.com",
    403: "is not there, or not public",
}
UNWELCOME = {401, 403}
# libcurl's failures that no other try mends: certificates, and addresses that are none.
HOPELESS = {
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_URL_MALFORMAT,
    pycurl.E_UNSUPPORTED_PROTOCOL,
}


class TryAgain(TileError):
    """It failed, and may not the next time. after: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Unwelcome(TileError):
    """The credential that was sent is not taken."""


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

    held: where libcurl puts what comes. problem: why it stopped the transfer; libcurl knows no
    exceptions.
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
        self.held: list[bytes] = []
        self._origin = origin
        self._watch = watch
        self._file: int | None = None
        self._length: int | None = None
        self._received = self._told = self._followed = 0
        self._written = 0.0  # when it last was, s

    def head(self, line: bytes) -> int | None:
        """Take a line of the head; None, where the transfer goes on. After the last one the part is
        ready for what comes."""
        try:
            self.answer.take(line)
            if not line.strip() and self.answer.status in GOOD and self._file is None:
                self._file = self._open()
        except (TileError, OSError) as error:
            self.problem = error
            return -1
        return None

    def go_on(self, *_: int) -> bool:
        """Look at what has been held, as libcurl asks to between one reading and the next; whether
        the transfer is to stop."""
        try:
            if self._file is None:
                return sum(map(len, self.held)) >= MOST_SAID
            if len(self.held) >= TOGETHER or monotonic() - self._written >= HELD_S:
                self._write(whole_blocks=True)
        except (TileError, OSError) as error:
            self.problem = error
        return self.problem is not None

    @property
    def said(self) -> bytes:
        """What came instead of a file: how a failure or a redirect explains itself."""
        return b"" if self._file is not None else b"".join(self.held)

    def _open(self) -> int:
        _begin(self.answer, self.address, self.part, self._origin, self.limits, self.span)
        self._received = self._told = self.part.size
        if self.answer.length is not None:
            self._length = self._received + self.answer.length
        self._watch(self._received, self._length)
        self._written = monotonic()
        return os.open(self.part.path, TO_APPEND, 0o666)

    def _write(self, whole_blocks: bool = False) -> None:
        """What is held goes to the disk together, and into the checksum of a small file; where
        `whole_blocks`, what is left of these waits for what comes next."""
        assert self._file is not None
        held = memoryview(b"".join(self.held))
        end = len(held) - len(held) % BLOCK if whole_blocks else len(held)
        self.held[:] = [bytes(held[end:])]
        start = self._received
        while self._received - start < end:
            # A disk that is nearly full takes some of it, and says so the next time.
            self._received += os.write(self._file, held[self._received - start : end])
        self._written = monotonic()
        if self._length is not None and self._length < FOLLOW:
            self.part.take(held[:end], start)
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


def receive(
    handle: pycurl.Curl,
    address: str,
    part: Part,
    limits: Limits,
    headers: Mapping[str, str] | None = None,
    watch: Watch = unwatched,
    at: str | None = None,
    span: tuple[int, int] | None = None,
) -> None:
    """Get the file at `address` into `part`, going on with what has come before where the server
    has the same file still.

    handle: keeps its connections from one file to the next. headers: credentials, for the address's
    own host alone. at: where the file is now, when the address only leads there. span: the first
    and the last byte that are wanted of it. A part of which all has come already is not asked for.
    Raises TileError when it is refused for good (NoRanges where a span can't be had), and TryAgain
    when it is worth another try.
    """
    if part.is_whole(address):
        return
    origin = part.origin(address)
    asked = dict(headers or {})
    if origin is not None or span is not None:
        asked["Range"] = _byte_range(part.size if origin is not None else 0, span)
    if origin is not None:
        validator = str(origin.validator)
        asked |= s3.condition(validator) if is_s3(address) else {"If-Range": validator}
    here = at or address
    for _ in range(MOST_REDIRECTS + 1):
        if host_of(here) != host_of(address):
            asked = {name: value for name, value in asked.items() if name != "Authorization"}
        answer = _ask(handle, here, Body(address, part, origin, limits, watch, span), asked)
        if answer.status not in REDIRECTS:
            return
        target = urljoin(here, answer.headers["location"])
        check_redirect(here, target, limits.private_hosts)
        here = target
    raise TileError(f"{host_of(address)} sends on and on; refused")


def _byte_range(come: int, span: tuple[int, int] | None) -> str:
    """What is to come after so many bytes, of all of a file or of a span."""
    return f"bytes={come}-" if span is None else f"bytes={span[0] + come}-{span[1]}"


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After, given as a number or a date; None where there is none."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _ask(
    handle: pycurl.Curl,
    here: str,
    body: Body,
    headers: Mapping[str, str],
) -> Answer:
    """One request; its answer's body goes to the part, once its head is found good."""
    handle.reset()
    prepare(handle, here, headers)
    handle.setopt(pycurl.HEADERFUNCTION, body.head)
    # Called for every 16 KB: threads would wait for one another to run anything longer.
    handle.setopt(pycurl.WRITEFUNCTION, body.held.append)
    handle.setopt(pycurl.XFERINFOFUNCTION, body.go_on)
    handle.setopt(pycurl.NOPROGRESS, 0)
    handle.setopt(pycurl.BUFFERSIZE, BUFFER)
    handle.setopt(pycurl.CONNECTTIMEOUT, CONNECT_S)
    handle.setopt(pycurl.LOW_SPEED_LIMIT, 1)
    handle.setopt(pycurl.LOW_SPEED_TIME, max(1, round(body.limits.timeout_s)))
    refused: list[str] = []
    keep_public(handle, here, body.limits.private_hosts, refused)
    try:
        handle.perform()
    except pycurl.error as error:
        if refused:
            raise TileError(refused[0]) from None
        if len(body.said) < MOST_SAID:
            _raise(error, body.problem, body.address)
    finally:
        body.close()
    if is_s3(body.address) and body.answer.status not in GOOD:
        read_s3(body.answer, body.address, here, body.said)
    check_status(body.answer, body.address, body.part, "Authorization" in headers, body.span)
    if body.answer.status in GOOD:
        body.finish()
    return body.answer


def read_s3(answer: Answer, address: str, here: str, said: bytes = b"") -> None:
    """A store's refusal in HTTP's words: its code as the reason, another region as a redirect."""
    answer.reason = s3.error_code(said) or answer.reason
    there = s3.in_region(address, here, answer.headers.get("x-amz-bucket-region"))
    if there is not None:
        answer.status, answer.headers["location"] = 307, there


def prepare(handle: pycurl.Curl, address: str, headers: Mapping[str, str]) -> None:
    """What every request has: web addresses alone, known certificates, who asks."""
    handle.setopt(pycurl.URL, address)
    handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    handle.setopt(pycurl.CAINFO, certifi.where())
    handle.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
    handle.setopt(pycurl.USERAGENT, f"jaisp/{__version__}")
    # The file as it is; what is packed in spite of that is unpacked.
    handle.setopt(pycurl.ACCEPT_ENCODING, "identity")
    handle.setopt(pycurl.NOSIGNAL, 1)


def _raise(error: pycurl.error, problem: Exception | None, address: str) -> None:
    """Say what stopped a transfer."""
    code, message = error.args
    if isinstance(problem, OSError):
        where = problem.filename or "the cache"
        raise TileError(f"{where}: {problem.strerror or problem}") from None
    if problem is not None:
        raise problem from None
    reason = f"{host_of(address)}: {' '.join(str(message).split()) or f'libcurl says {code}'}"
    raise (TileError if code in HOPELESS else TryAgain)(reason) from None


def check_status(
    answer: Answer,
    address: str,
    part: Part,
    has_credential: bool = False,
    span: tuple[int, int] | None = None,
) -> None:
    """Raise for what a server answers instead of a file: TryAgain where it may think otherwise
    later, else TileError."""
    if answer.status in GOOD or (answer.status in REDIRECTS and "location" in answer.headers):
        return
    if answer.status == 416 and span is not None and not part.size:
        raise NoRanges(f"{host_of(address)}: the file ends before what is asked for")
    if answer.status == 416:
        part.discard()
        raise TryAgain(f"{host_of(address)} has no such range; begun anew")
    if answer.status == 412 and is_s3(address):
        part.discard()
        raise TryAgain(f"{host_of(address)}: the object has changed on the way; begun anew")
    said = f"{host_of(address)} answers {answer.status} {answer.reason}".strip()
    if answer.status in PASSING:
        raise TryAgain(said, retry_after(answer.headers.get("retry-after")))
    if has_credential and answer.status in UNWELCOME:
        raise Unwelcome(f"{said}: {address:.200} refuses our credential")
    lacking = LACKING_IN_BUCKET if is_s3(address) else LACKING
    raise TileError(f"{said}: {address:.200} {lacking.get(answer.status, '')}".strip())


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
