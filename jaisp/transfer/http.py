"""One try to get a file, or the rest of it, over HTTP."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import certifi
import pycurl

from jaisp import __version__
from jaisp.errors import TileError
from jaisp.transfer import s3
from jaisp.transfer.address import check_redirect, host_of, is_s3
from jaisp.transfer.body import (
    GOOD,
    MOST_SAID,
    Answer,
    Body,
    Limits,
    NoRanges,
    TryAgain,
    Watch,
    unwatched,
)
from jaisp.transfer.part import Part
from jaisp.transfer.peer import keep_public

BUFFER = 512 << 10  # bytes
CONNECT_S = 30
MOST_REDIRECTS = 5
# What a server answers when it may think otherwise later. IRSA answers 400 at random.
PASSING = {400, 408, 409, 421, 423, 425, 429, 500, 502, 503, 504, 507, 520, 522, 524}
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


class Unwelcome(TileError):
    """The credential that was sent is not taken."""


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
    handle.setopt(pycurl.HEADERFUNCTION, body.answer.take)
    handle.setopt(pycurl.WRITEFUNCTION, body.take)
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
