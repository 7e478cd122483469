"""From an address to a whole, verified file in the cache, once, whatever fails on the way."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pycurl
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from jaisp.cache import cache_folder, cache_name
from jaisp.config.fetch import FetchConfig
from jaisp.digest import Digest
from jaisp.errors import TileError
from jaisp.files import locked, sha256
from jaisp.transfer import s3
from jaisp.transfer.address import host_of, is_s3
from jaisp.transfer.body import Limits, TryAgain, Watch, unwatched
from jaisp.transfer.datalink import link_target
from jaisp.transfer.http import receive
from jaisp.transfer.part import Part, add_note, read_notes
from jaisp.transfer.slots import slot

log = logging.getLogger(__name__)

MOST_ANSWER = 500_000_000  # bytes that a service's answer has, which is kept in memory
LONGEST_WAIT_S = 300.0
FIRST_WAIT_S = 0.5

# Raises TileError for what is not wanted; given what reading the file told.
Verify = Callable[[Path, Digest], None]

_handles = threading.local()


@dataclass(frozen=True)
class Wanted:
    """A file elsewhere. bytes, sha256: what the archive says of it, 0 and "" where it doesn't.

    survey: whose folder of the cache it goes to. linked: whether the address is of a DataLink
    document, which says where the file is. span: the first and the last byte, where not all of them
    are wanted. from_service: whether it was a service that named the address, and not the config:
    then its host has to be a public one.
    """

    survey: str
    address: str
    bytes: int = 0
    sha256: str = ""
    linked: bool = False
    span: tuple[int, int] | None = None
    from_service: bool = False


def download(
    wanted: Wanted,
    settings: FetchConfig,
    verify: Verify,
    headers: Mapping[str, str] | None = None,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Bring a file into the cache, unless it is there; returns its name below the cache, bytes and
    checksum, and whether it was fetched just now.

    A file is got to a `.part` beside the cache's files, verified there (length, checksum, and
    whatever `verify` raises TileError for), synced and renamed; a part is gone on with in any later
    try or run. watch: told how far it is. Raises TileError when it can't be had.
    """
    folder, key = place(wanted)
    part = Part(folder / key)
    with locked(part.notes):
        known = cached(part.notes, wanted)
        if known is not None:
            return known | {"fetched": False}
        digest = _get(wanted, part, settings, verify, headers, watch)
        entry = _keep(wanted, part, digest)
    return entry | {"fetched": True}


def in_cache(wanted: Wanted, part: str = "") -> dict[str, Any] | None:
    """What `download` would return of a file, or of a part of one, that is in the cache; None of
    another."""
    folder, key = place(wanted, part)
    return cached(folder / f"{key}.json", wanted)


def place(wanted: Wanted, part: str = "") -> tuple[Path, str]:
    """The folder of what is known of downloads, and the name in it of a file, or of a part of one
    that is a file of its own here."""
    name = " ".join([wanted.address, wanted.sha256, *([part] if part else [])])
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    return cache_folder() / wanted.survey / "downloads", key


def ask(
    address: str,
    folder: Path,
    settings: FetchConfig,
    headers: Mapping[str, str] | None = None,
    verify: Verify = lambda path, digest: None,
    span: tuple[int, int] | None = None,
    from_service: bool = False,
) -> bytes:
    """What a service answers to a question, tried for as often as a file; none of it is kept.

    folder: where it is received. span: the first and the last byte of a file that are asked for.
    from_service: see `Wanted`. Raises TileError when it can't be had.
    """
    key = hashlib.sha256(address.encode()).hexdigest()[:32]
    most = min(MOST_ANSWER, settings.most_bytes)
    settings = settings.model_copy(update={"most_bytes": most})
    part = Part(folder / f".{os.getpid()}.{threading.get_ident()}.{key}")
    try:
        wanted = Wanted("", address, span=span, from_service=from_service)
        _get(wanted, part, settings, verify, headers, unwatched)
        return part.path.read_bytes()
    finally:
        part.discard()
        part.notes.unlink(missing_ok=True)


def receive_part(
    wanted: Wanted,
    part: Part,
    settings: FetchConfig,
    headers: Mapping[str, str] | None,
    watch: Watch,
) -> None:
    """Get a file's span into a part, tried for as often as a file, and go on with what is there."""
    _get(wanted, part, settings, lambda path, digest: None, headers, watch)


def cached(notes: Path, wanted: Wanted) -> dict[str, Any] | None:
    """What the cache has of it, if its bytes are those that were verified."""
    entry = next((note for note in reversed(read_notes(notes)) if "file" in note), None)
    if entry is None:
        return None
    path = cache_folder() / entry["file"]
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return None
    if wanted.bytes and entry["bytes"] != wanted.bytes:
        return None
    return entry if sha256(path) == entry["sha256"] else None


def _get(
    wanted: Wanted,
    part: Part,
    settings: FetchConfig,
    verify: Verify,
    headers: Mapping[str, str] | None,
    watch: Watch,
) -> str:
    """Try until it is there, or until too many tries in a row have brought nothing; returns its
    checksum."""
    most = settings.most_bytes
    if wanted.span is not None:
        most = min(most, wanted.span[1] - wanted.span[0] + 1)
    limits = Limits(
        most_bytes=most,
        timeout_s=settings.timeout_s,
        expected_bytes=wanted.bytes or None,
        private_hosts=may_be_private(wanted, settings),
    )
    fruitless, digest = 0, ""

    def too_many(_: RetryCallState) -> bool:
        return fruitless >= settings.attempts

    for attempt in Retrying(
        retry=retry_if_exception_type(TryAgain), stop=too_many, wait=_wait, reraise=True
    ):
        with attempt:
            before = part.size
            try:
                at = _target(wanted, part, settings, headers)
                # Held while bytes come, not while a try is waited for.
                with slot(cache_folder() / ".slots", host_of(at), settings.per_host):
                    if is_s3(at):  # no credential of the archive is a bucket's
                        place = s3.web_address(at, settings.s3_endpoint)
                        receive(_handle(), at, part, limits, None, watch, place, wanted.span)
                    else:
                        receive(
                            _handle(), wanted.address, part, limits, headers, watch, at, wanted.span
                        )
                digest = _check(wanted, part, verify)
            except TryAgain as error:
                fruitless = 1 if part.size > before else fruitless + 1
                log.info("%s: %s; tried %d times", wanted.address, error, fruitless)
                raise
    return digest


def may_be_private(wanted: Wanted, settings: FetchConfig) -> set[str]:
    """Hosts that may lie in a private network: those that the config names."""
    if not is_s3(wanted.address):
        named = [] if wanted.from_service else [wanted.address]
    else:  # whoever names a bucket, it is looked for at the config's own store
        named = [s3.web_address(wanted.address, settings.s3_endpoint)]
    return {*settings.private_hosts, *(str(urlsplit(each).hostname) for each in named)}


def _target(
    wanted: Wanted, part: Part, settings: FetchConfig, headers: Mapping[str, str] | None
) -> str:
    """Where the file is now: what a DataLink document says may hold for minutes."""
    if not wanted.linked or part.is_whole(wanted.address):
        return wanted.address
    try:
        folder, from_service = part.path.parent, wanted.from_service
        answer = ask(wanted.address, folder, settings, headers, from_service=from_service)
    except TryAgain as error:
        raise TileError(str(error)) from None  # it was tried often enough
    return link_target(answer, wanted.address, may_be_private(wanted, settings))


def _wait(state: RetryCallState) -> float:
    """As long as the server asks, else longer and longer with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    after = error.after if isinstance(error, TryAgain) else None
    if after is not None:
        return min(after, LONGEST_WAIT_S)
    return wait_random_exponential(multiplier=FIRST_WAIT_S, max=60)(state)


def _check(wanted: Wanted, part: Part, verify: Verify) -> str:
    """The checksum of a part that is whole; another one is forgotten, and tried for anew."""
    try:
        if wanted.bytes and part.size != wanted.bytes:
            raise TileError(f"{part.size} bytes long, not {wanted.bytes} as the archive said")
        digest = part.digest()
        if wanted.sha256 and digest.sha256 != wanted.sha256:
            raise TileError("differs from the archive's checksum")
        verify(part.path, digest)
    except TileError as error:
        part.discard()
        reason = str(error).replace(part.path.name, file_name(wanted.address))
        raise TryAgain(reason) from None
    return digest.sha256


def _keep(wanted: Wanted, part: Part, digest: str) -> dict[str, Any]:
    """Sync the whole part, and rename it to where its checksum puts it.

    Its notes say where before it is there: killed in between, the whole part is verified again;
    the other way round the file would be there, and asked for a second time.
    """
    part.sync()
    name = cache_name(wanted.survey, digest, file_name(wanted.address))
    entry = {"file": name, "bytes": part.size, "sha256": digest}
    add_note(part.notes, entry)
    part.finish(cache_folder() / name)
    return entry


def file_name(address: str) -> str:
    """The last part of an address's path."""
    return address.partition("?")[0].rstrip("/").rpartition("/")[2]


def _handle() -> pycurl.Curl:
    """This thread's own, which keeps its connections."""
    if not hasattr(_handles, "curl"):
        _handles.curl = pycurl.Curl()
    return _handles.curl
