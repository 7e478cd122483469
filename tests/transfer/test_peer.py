"""A name that stands for a public number when it is looked at, and for another when it is asked."""

import socket
import sys

import numpy as np
import pytest

from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.transfer import Wanted, ask, download
from jaisp.transfer.sizes import size_of
from tests.transfer.server import Served, serving

SETTINGS = FetchConfig(attempts=2, timeout_s=5)
CONTENT = np.random.default_rng(3).bytes(50_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "FIRST_WAIT_S", 0.001)
    for name in ("http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch):
    """`localhost` is said to be public; libcurl, which looks it up itself, is told otherwise."""
    looked_up = socket.getaddrinfo

    def look_up(host, port, *more, **options):
        if host == "localhost":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]
        return looked_up(host, port, *more, **options)

    with serving() as server:
        server.files["/a.fits"] = Served(CONTENT)
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        yield server


def renamed(server, path):
    return server.address(path).replace("127.0.0.1", "localhost")


def get(address, settings=SETTINGS, **more):
    return download(Wanted("hst", address, **more), settings, lambda path, digest: None)


def test_an_address_that_a_service_named(server, cache):
    with pytest.raises(TileError, match=r"^localhost: in a private network; refused.*private_host"):
        get(renamed(server, "/a.fits"), from_service=True)
    with pytest.raises(TileError, match=r"^localhost: in a private network"):
        ask(renamed(server, "/a.fits"), cache, SETTINGS, from_service=True)
    assert size_of(renamed(server, "/a.fits"), SETTINGS, from_service=True) is None
    assert not server.files["/a.fits"].asked


def test_where_one_is_sent(server):
    there = renamed(server, "/a.fits")
    sent = [lambda h, _: (h.answer(302, Location=there), True)[1]] * 9
    server.files["/b.fits"] = Served(b"", faults=sent)
    with pytest.raises(TileError, match=r"^localhost: in a private network"):
        get(server.address("/b.fits"))
    assert size_of(server.address("/b.fits"), SETTINGS) is None
    assert not server.files["/a.fits"].asked
    assert len(server.files["/b.fits"].asked) == 2
    meant = SETTINGS.model_copy(update={"private_hosts": ["localhost"]})
    assert get(server.address("/b.fits"), meant)["bytes"] == len(CONTENT)


def test_a_connection_that_was_kept(server):
    server.files["/b.fits"] = Served(CONTENT)
    assert get(renamed(server, "/a.fits"))["bytes"] == len(CONTENT)  # the config names it
    with pytest.raises(TileError, match=r"^localhost: in a private network"):
        get(renamed(server, "/b.fits"), from_service=True)
    assert not server.files["/b.fits"].asked


def test_a_proxy_looks_names_up_itself(server, monkeypatch):
    server.files["http://localhost:9/a.fits"] = Served(CONTENT)
    monkeypatch.setenv("http_proxy", server.address(""))
    # libcurl asks no proxy for localhost only where it is told so.
    assert get("http://localhost:9/a.fits", from_service=True)["bytes"] == len(CONTENT)
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(TileError, match=r"^localhost: in a private network"):
        get(renamed(server, "/a.fits"), from_service=True)
    assert not server.files["/a.fits"].asked
