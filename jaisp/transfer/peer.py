"""Whom a transfer may connect to.

What a host's name stands for may change between two looks: so the number that is connected to is
looked at itself, before anything is sent.
"""

import os
import socket
from collections.abc import Collection
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import pycurl

from jaisp.transfer.address import is_public, private


def keep_public(
    handle: pycurl.Curl, address: str, private_hosts: Collection[str], refused: list[str]
) -> None:
    """Let a request go to public numbers alone, unless its host is one of `private_hosts`; why one
    was not let go is added to `refused`.

    Where it goes by a proxy (as the environment names it) that one looks names up, and is itself
    as a rule in a private network.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    if host in private_hosts or _by_proxy(parts.scheme, host):
        return

    def is_good(number: str) -> bool:
        if not is_public(number):
            refused.append(private(host))
        return is_public(number)

    def connect(purpose: int, to: tuple[int, int, int, tuple[str, int]]) -> socket.socket | int:
        family, kind, protocol, (number, *_) = to
        return socket.socket(family, kind, protocol) if is_good(number) else pycurl.SOCKET_BAD

    def go_on(number: str, *_: object) -> int:
        """Asked of connections that were kept too."""
        return pycurl.PREREQFUNC_OK if is_good(number) else pycurl.PREREQFUNC_ABORT

    handle.setopt(pycurl.OPENSOCKETFUNCTION, connect)
    handle.setopt(pycurl.PREREQFUNCTION, go_on)


def _by_proxy(scheme: str, host: str) -> bool:
    """Whether libcurl asks a proxy; it does not heed HTTP_PROXY, which servers' programs may get
    from whoever asks them."""
    names = [f"{scheme}_proxy", "all_proxy", "ALL_PROXY"]
    names += ["HTTPS_PROXY"] if scheme == "https" else []
    return any(map(os.environ.get, names)) and not proxy_bypass(host)
