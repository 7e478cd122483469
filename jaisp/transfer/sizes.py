"""How long a file elsewhere is, before it is brought here."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import urljoin

import pycurl

from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.transfer import s3
from jaisp.transfer.address import check_redirect, host_of, is_s3
from jaisp.transfer.body import Answer
from jaisp.transfer.download import Wanted, may_be_private
from jaisp.transfer.http import MOST_REDIRECTS, REDIRECTS, prepare, read_s3
from jaisp.transfer.peer import keep_public


def size_of(
    address: str,
    settings: FetchConfig,
    headers: Mapping[str, str] | None = None,
    from_service: bool = False,
) -> int | None:
    """Bytes that the server says a file has; None where it doesn't say, or is not there.

    from_service: see `Wanted`.

    Asks for the first byte alone: there are servers that never answer a HEAD (DaCHS), and signed
    addresses that allow none.
    """
    asked = {} if is_s3(address) else dict(headers or {})
    try:
        here = s3.web_address(address, settings.s3_endpoint) if is_s3(address) else address
        wanted = Wanted("", address, from_service=from_service)
        private_hosts = may_be_private(wanted, settings)
        for _ in range(MOST_REDIRECTS + 1):
            answer = _head(here, asked, settings.timeout_s, private_hosts)
            if is_s3(address) and answer.status not in (200, 206):
                read_s3(answer, address, here)
            if answer.status not in REDIRECTS:
                return _length(answer)
            target = urljoin(here, answer.headers["location"])
            check_redirect(here, target, private_hosts)
            if host_of(target) != host_of(address):
                asked = {}
            here = target
    except (pycurl.error, TileError, KeyError):
        pass
    return None


def _head(
    address: str, headers: Mapping[str, str], timeout_s: float, private_hosts: Collection[str]
) -> Answer:
    """The head of an answer that one byte is asked of. Raises pycurl.error."""
    answer, handle = Answer(), pycurl.Curl()
    try:
        prepare(handle, address, {**headers, "Range": "bytes=0-0"})
        handle.setopt(pycurl.HEADERFUNCTION, answer.take)
        handle.setopt(pycurl.WRITEFUNCTION, lambda chunk: -1)  # the head says it all
        handle.setopt(pycurl.TIMEOUT, max(1, round(timeout_s)))
        keep_public(handle, address, private_hosts, [])
        handle.perform()
    except pycurl.error as error:
        if error.args[0] != pycurl.E_WRITE_ERROR:
            raise
    finally:
        handle.close()
    return answer


def _length(answer: Answer) -> int | None:
    if answer.status == 206:
        told = re.fullmatch(r"bytes 0-0/(\d+)", answer.headers.get("content-range", ""))
        return int(told[1]) if told else None
    return answer.length if answer.status == 200 else None
