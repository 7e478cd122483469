"""Servers that take ranges in ways of their own."""

import sys

import pytest

from jaisp.cache import cache_folder
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.transfer import Wanted, download
from jaisp.transfer.download import ask
from jaisp.transfer.sizes import size_of
from tests.transfer.server import Served, serving

SETTINGS = FetchConfig(attempts=4, timeout_s=2)
MONDAY, TUESDAY = "Mon, 06 Jan 2025 00:00:00 GMT", "Tue, 07 Jan 2025 00:00:00 GMT"


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "FIRST_WAIT_S", 0.001)
    with serving() as server:
        yield server


def dated(date, content, stop=None):
    """Files with dates and no tags, and ranges of whatever the server has now, as DaCHS does."""

    def answer(h, _):
        start = int(h.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        h.send_response(206 if start else 200)
        h.send_header("Last-Modified", date)
        h.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        h.send_header("Content-Length", str(len(content) - start))
        h.end_headers()
        h.wfile.write(content[start:stop])
        if stop is not None:
            h.cut()
        return True

    return answer


@pytest.mark.parametrize(("later", "requests"), [(MONDAY, 2), (TUESDAY, 3)])
def test_the_rest_of_a_later_file_is_not_put_to_an_earlier_ones_beginning(server, later, requests):
    """Nothing but the date tells: the lengths are the same, and there is no checksum."""
    old = b"o" * 90_000
    new = old if later == MONDAY else b"n" * 90_000
    faults = [dated(MONDAY, old, stop=50_000), dated(later, new), dated(later, new)]
    file = server.files["/a.fits"] = Served(new, faults=faults)
    entry = download(
        Wanted("rubin", server.address("/a.fits")), SETTINGS, lambda path, digest: None
    )
    assert (cache_folder() / entry["file"]).read_bytes() == new
    assert len(file.asked) == requests
    assert file.asked[1]["If-Range"] == MONDAY


@pytest.mark.parametrize("ranges", [True, False])
def test_how_long_a_file_is_costs_its_first_byte(server, ranges):
    content = bytes(1_000_000)
    file = server.files["/a.fits"] = Served(content, ranges=ranges)
    assert size_of(server.address("/a.fits"), SETTINGS) == len(content)
    assert file.asked[0]["Range"] == "bytes=0-0"


def test_where_nobody_says_how_long_a_file_is_nothing_is_made_up(server):
    server.files["/a.fits"] = Served(bytes(1000), ranges=False, length=False)
    unknown = Served(bytes(1000), faults=[lambda h, _: (h.answer(206, b"x"), True)[1]])
    server.files["/b.fits"] = unknown
    for name in ("a", "b", "c"):
        assert size_of(server.address(f"/{name}.fits"), SETTINGS) is None


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_span_that_is_longer_than_was_asked_for_is_refused(server, tmp_path, tells_length):
    def more(handler, content):
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-99/{len(content)}")
        if tells_length:
            handler.send_header("Content-Length", str(len(content)))
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        handler.wfile.write(content)
        return True

    server.files["/a.fits"] = Served(bytes(5_000_000), faults=[more])
    with pytest.raises(TileError, match="than what was asked for; refused"):
        ask(server.address("/a.fits"), tmp_path, SETTINGS, span=(0, 99))
    assert not list(tmp_path.rglob("*.part"))


def test_an_answer_that_is_kept_in_memory_is_no_longer_than_memory_holds(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "MOST_ANSWER", 1000)
    server.files["/answer"] = Served(bytes(2000))
    with pytest.raises(TileError, match="2000 bytes long, more than"):
        ask(server.address("/answer"), tmp_path, SETTINGS)
