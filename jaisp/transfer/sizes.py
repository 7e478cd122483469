"""How long a file elsewhere is, before it is brought here."""

import re
from collections.abc import Mapping

import pycurl

from jaisp.config.fetch import FetchConfig
from jaisp.transfer import s3
from jaisp.transfer.address import is_s3
from jaisp.transfer.http import Answer, prepare


def size_of(
    address: str, settings: FetchConfig, headers: Mapping[str, str] | None = None
) -> int | None:
    """Bytes that the server says a file has; None where it doesn't say, or is not there.

    Asks for the first byte alone: there are servers that never answer a HEAD (DaCHS), and signed
    addresses that allow none.
    """
    if is_s3(address):
        return s3.size_of(address, settings)
    answer, handle = Answer(), pycurl.Curl()
    asked = {**(headers or {}), "Range": "bytes=0-0"}
    try:
        prepare(handle, address, asked)
        handle.setopt(pycurl.HEADERFUNCTION, answer.take)
        handle.setopt(pycurl.WRITEFUNCTION, lambda chunk: -1)  # the head says it all
        handle.setopt(pycurl.TIMEOUT, max(1, round(settings.timeout_s)))
        handle.perform()
    except pycurl.error as error:
        if error.args[0] != pycurl.E_WRITE_ERROR:
            return None
    finally:
        handle.close()
    if answer.status == 206:
        told = re.fullmatch(r"bytes 0-0/(\d+)", answer.headers.get("content-range", ""))
        return int(told[1]) if told else None
    return answer.length if answer.status == 200 else None
