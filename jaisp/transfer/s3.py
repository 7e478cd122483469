"""One try to get an object, or the rest of it, from a public bucket of S3.

Nobody says who they are here: no request is signed, and what the environment holds of keys, hosts
and proxies for S3 is overruled.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, NoReturn

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import S3Store

from jaisp import __version__
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.transfer.address import bucket_and_key, host_of
from jaisp.transfer.http import (
    CONNECT_S,
    FOLLOW,
    TELL,
    Answer,
    Limits,
    TryAgain,
    Watch,
    check_room,
    check_status,
    unwatched,
)
from jaisp.transfer.part import Origin, Part

AMAZON = "https://s3.amazonaws.com"
# Amazon finds a bucket's region by its name, but its certificate holds for names without dots.
AMAZON_BUCKET = "https://{bucket}.s3.amazonaws.com"
BUFFER = 64 << 10  # bytes that a killed process may lose
MOST_STORES = 64  # buckets whose connections are kept
FOREVER = timedelta(days=365)  # a file may take as long as it likes while bytes come
# obstore's failures: as it words them, since it has no kinds for most.
STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>(\w{1,60})</Code>")
ELSEWHERE = "redirect without LOCATION"
CERTIFICATE = "InvalidCertificate"
WIRE = "HTTP error"
# What obstore tells of the wire, and what is said of it.
WIRE_KINDS = {
    "kind: Timeout": "sends nothing",
    "kind: Connect": "can't be reached",
    "kind: Interrupted": "breaks off",
}
# What obstore raises; where an object is not there it is Python's own.
FAILURES = (BaseError, FileNotFoundError)


def receive(
    address: str,
    part: Part,
    limits: Limits,
    endpoint: str | None = None,
    watch: Watch = unwatched,
    span: tuple[int, int] | None = None,
) -> None:
    """Get the object at `address` into `part`, going on with what has come before while the bucket
    has the same object still.

    endpoint: the store's address; None for Amazon's. watch: told how far it is. span: the
    first and the last byte that are wanted of it. Raises TileError when it is refused for good, and
    TryAgain when it is worth another try.
    """
    bucket, key = bucket_and_key(address)
    store = _store(bucket, endpoint, limits.timeout_s)
    if part.is_whole(address):
        return
    origin = part.origin(address)
    try:
        found = obstore.get(store, key, options=_options(part, origin, span))
    except FAILURES as error:
        _raise(error, address, part, origin, span)
    _begin(found.meta, found.range, address, part, origin, limits, span)
    here, told, followed = part.size, 0, 0
    try:
        with part.path.open("ab", buffering=BUFFER) as file:
            for chunk in found.stream(min_chunk_size=1):  # as it comes: none waits to be lost
                file.write(chunk)
                here += len(chunk)
                if here - told >= TELL:
                    told = here
                    watch(here, found.meta["size"])
                if here - followed >= FOLLOW:
                    followed = here
                    part.follow()
    except BaseError as error:
        _raise(error, address, part, None)
    except OSError as error:
        raise TileError(f"{error.filename or 'the cache'}: {error.strerror or error}") from None


def _options(part: Part, origin: Origin | None, span: tuple[int, int] | None) -> Any:
    """What to ask for: all, the rest of it, a span, or the rest of one."""
    come = 0 if origin is None else part.size
    options: dict[str, Any] = {} if origin is None else {"if_match": origin.validator}
    if span is not None:
        return options | {"range": (span[0] + come, span[1] + 1)}
    return options | {"range": {"offset": come}} if come else options


def size_of(address: str, settings: FetchConfig) -> int | None:
    """Bytes of an object; None where the bucket doesn't say, or hasn't got it."""
    try:
        bucket, key = bucket_and_key(address)
        store = _store(bucket, settings.s3_endpoint, settings.timeout_s)
        return obstore.head(store, key)["size"]
    except (*FAILURES, TileError):
        return None


@lru_cache(MOST_STORES)
def _store(bucket: str, endpoint: str | None, timeout_s: float) -> S3Store:
    """A bucket, which keeps its connections from one object to the next."""
    own_name = endpoint is None and "." not in bucket
    address = AMAZON_BUCKET.format(bucket=bucket) if own_name else endpoint or AMAZON
    address = address.rstrip("/")
    timeout = timedelta(seconds=timeout_s)
    # What is not given here is taken from variables: hosts, proxies, keys, who pays.
    return S3Store(
        bucket,
        aws_endpoint_url_s3=address,
        endpoint=address,
        virtual_hosted_style_request=own_name,
        region="us-east-1",
        skip_signature=True,
        access_key_id="",
        secret_access_key="",
        session_token="",
        request_payer=False,
        s3_express=False,
        client_options={
            "allow_http": address.startswith("http://"),
            "allow_invalid_certificates": False,
            "connect_timeout": min(timeout, timedelta(seconds=CONNECT_S)),
            "read_timeout": timeout,
            "timeout": FOREVER,
            "user_agent": f"jaisp/{__version__}",
        },
        # Tries are counted, and waited for, in one place: not here.
        retry_config={"max_retries": 0},
    )


def _begin(
    told: Mapping[str, Any],
    coming: tuple[int, int],
    address: str,
    part: Part,
    origin: Origin | None,
    limits: Limits,
    span: tuple[int, int] | None,
) -> None:
    """Make the part ready for the bytes from one to another that are to come, or raise."""
    first, last = (0, told["size"] - 1) if span is None else span
    length, tag = min(last + 1, told["size"]) - first, told["e_tag"]
    start, stop = coming[0] - first, coming[1] - first
    if origin is None:
        # A weak tag can't be asked for again.
        strong = tag if tag and not tag.startswith("W/") else None
        part.begin(Origin(address, strong, length))
    elif (tag, start, length) != (origin.validator, part.size, origin.length):
        part.discard()
        raise TryAgain(f"{host_of(address)}: the object has changed on the way; begun anew")
    check_room(part, stop - start, limits)


def _raise(
    error: Exception,
    address: str,
    part: Part,
    origin: Origin | None,
    span: tuple[int, int] | None = None,
) -> NoReturn:
    """Say what stopped a try. origin: of the part that was to be gone on with."""
    text, host = str(error), host_of(address)
    if isinstance(error, PreconditionError):
        part.discard()
        raise TryAgain(f"{host}: the object has changed on the way; begun anew") from None
    if (status := STATUS.search(text)) is not None:
        code = CODE.search(text)
        check_status(Answer(int(status[1]), code[1] if code else ""), address, part, span=span)
    if ELSEWHERE in text:
        raise TileError(
            f"{address:.200} is in another region; name it with fetch.s3_endpoint, as in "
            "https://s3.REGION.amazonaws.com"
        ) from None
    if CERTIFICATE in text:
        raise TileError(f"{host}: the store's certificate is not good; refused") from None
    if WIRE not in text and origin is not None:
        part.discard()
        raise TryAgain(f"{host} does not send the rest of an object; begun anew") from None
    told = [said for kind, said in WIRE_KINDS.items() if kind in text]
    first = " ".join(text.partition("\n")[0].rpartition(" - ")[2].split())
    raise TryAgain(f"{host} {told[0]}" if told else f"{host}: {first:.200}") from None
