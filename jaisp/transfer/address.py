"""Which addresses may be asked: those of the config, and where these may lead."""

import ipaddress
import re
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from jaisp.errors import TileError

S3 = "s3"
SCHEMES = ("http", "https", S3)
LONGEST = 4096  # characters
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_address(text: object) -> bool:
    """Whether it is an address rather than a path on this machine."""
    return isinstance(text, str) and text.partition("://")[0].lower() in SCHEMES and "://" in text


def is_s3(address: str) -> bool:
    """Whether it names an object in a bucket, s3://BUCKET/KEY."""
    return address.partition("://")[0].lower() == S3 and "://" in address


def bucket_and_key(address: str) -> tuple[str, str]:
    """The bucket and the key of an object; both stand in its address as they are.

    Raises TileError for another scheme, for names that no bucket has, and for keys that are empty,
    too long, or have empty parts, `.` or `..`, or signs that none has.
    """
    _check_signs(address)
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != S3:
        raise TileError(f"{address:.80}: no object in a bucket (s3://BUCKET/KEY); refused")
    if BUCKET.fullmatch(bucket) is None or ".." in bucket:
        raise TileError(f"{address:.80}: {bucket!r:.40} is no bucket's name; refused")
    if {"", ".", ".."} & set(key.split("/")):
        raise TileError(f"{address:.80}: its key is empty, or has empty parts, . or ..; refused")
    return bucket, key


def host_of(address: str) -> str:
    """The host's name, and its port where one is given; of an object its bucket."""
    if is_s3(address):
        return address.partition("://")[2].partition("/")[0]
    return urlsplit(address).netloc.rpartition("@")[2]


def check_address(address: str, private_hosts: Collection[str] = ()) -> None:
    """Refuse an address that came from a service and leads where none should.

    private_hosts: names of hosts that may lie in a private network. Raises TileError for another
    scheme than http, https and s3, for an address without a host, with a user's name, too long or
    with signs that none has, and for hosts that are not public ones. Buckets are those of the
    config's own store, whoever names them.
    """
    if is_s3(address):
        bucket_and_key(address)
        return
    _check_signs(address)
    if " " in address:
        raise TileError(f"{address!r:.80}: no address; refused")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TileError(f"{address:.80}: no address ({error}); refused") from None
    if parts.scheme not in SCHEMES:
        raise TileError(f"{address:.80}: only {', '.join(SCHEMES)} are read from; refused")
    if not host or parts.username is not None or parts.password is not None:
        named = f"{parts.scheme}://{host or ''}{parts.path}"
        raise TileError(f"{named:.80}: an address has a host, and no user in it; refused")
    if host in private_hosts:
        return
    if not all(map(is_public, _numbers(host, port))):
        raise TileError(private(host))


def is_public(number: str) -> bool:
    """Whether a host's number is of the public network; an IPv6 one may carry a zone after %."""
    return ipaddress.ip_address(number.partition("%")[0]).is_global


def private(host: str) -> str:
    """What is said of a host that is no public one."""
    return f"{host}: in a private network; refused. If it is meant, add it to fetch.private_hosts"


def check_redirect(origin: str, target: str, private_hosts: Collection[str] = ()) -> None:
    """Refuse to be sent to another scheme, or to where `check_address` does not let go.

    The origin's own host is as good as it was.
    """
    before, after = urlsplit(origin), urlsplit(target)
    if after.scheme != before.scheme:
        raise TileError(
            f"{host_of(origin)} sends to {after.scheme or 'no'}://{host_of(target):.60}, another "
            f"scheme than {before.scheme}; refused. If it is right, name that address in the config"
        )
    check_address(target, {*private_hosts, *([before.hostname] if before.hostname else [])})


def _check_signs(address: str) -> None:
    if len(address) > LONGEST:
        raise TileError(f"{address[:60]!r}…: an address of {len(address)} characters; refused")
    if not address.isprintable():
        raise TileError(f"{address!r:.80}: no address; refused")


def _numbers(host: str, port: int | None) -> set[str]:
    """The numbers that a host's name stands for; none where nobody knows it."""
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(entry[4][0]) for entry in found}
