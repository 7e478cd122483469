"""Whatever fails on the way, a file arrives whole, once, or is given up in one line."""

import gzip
import io
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache as cache_of_calls
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from jaisp.cache import cache_folder
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.files import sha256
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
from jaisp.transfer.http import retry_after
from tests.transfer.server import Served, serving, slowly

CASES = 24
SETTINGS = FetchConfig(attempts=4, timeout_s=1, per_host=32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "FIRST_WAIT_S", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@cache_of_calls
def tile(seed, side=200):
    """A FITS file with checksums, which hold the time that they were made at."""
    pixels = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    handle = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(handle, checksum=True)
    return handle.getvalue()


def brought(server, path, **more):
    wanted = Wanted("rubin", server.address(path), **more)
    return download(wanted, SETTINGS, verify_structure)


def files_of(cache):
    """What a later job could take for whole."""
    beside = (".part", ".json", ".lock", ".slot")
    return [p for p in cache.rglob("*") if p.is_file() and not p.name.endswith(beside)]


def assert_nothing_is_corrupt(cache, allowed):
    for path in files_of(cache):
        assert path.read_bytes() in allowed
        assert path.name.startswith(sha256(path)[:32])


# What a server does to one request. Each is made from where in the file it happens.
def reset(at):
    return lambda h, _: (h.serve(h.server.files[h.path], stop=at), h.cut(reset=True))


def truncated(at):
    return lambda h, _: (h.serve(h.server.files[h.path], stop=at), h.cut())


def truncated_without_length(at):
    def fault(h, content):
        h.close_connection = True
        h.send_response(200)
        h.send_header("Connection", "close")
        h.end_headers()
        h.wfile.write(content[:at])
        return True

    return fault


def stalled(at):
    def fault(h, content):
        h.serve(h.server.files[h.path], stop=at)
        h.wfile.flush()
        time.sleep(2.6)
        h.cut()
        return True

    return fault


def answered(status, **headers):
    return lambda at: lambda h, _: (h.answer(status, b"no" * (at % 50), **headers), True)[1]


def flipped(at):
    def fault(h, content):
        spoiled = bytearray(content)
        spoiled[at % len(content)] ^= 0x10
        h.answer(200, bytes(spoiled), ETag='"one"')
        return True

    return fault


def page(at):
    return lambda h, _: (h.answer(200, b"<html>sorry" + b" " * at), True)[1]


def packed(at):
    return lambda h, content: (
        h.answer(200, gzip.compress(content), Content_Encoding="gzip", ETag='"one"'),
        True,
    )[1]


def changed(at):
    """Cut, and meanwhile the file becomes another one."""

    def fault(h, content):
        file = h.server.files[h.path]
        h.serve(file, stop=at)
        file.content, file.tag = tile(at + 10_000), '"two"'
        h.cut(reset=True)
        return True

    return fault


def changed_unnoticed(at):
    """The same, and the server goes on with the other file, whatever was asked for."""

    def rest(h, content):
        start = int(h.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body = content[start:]
        whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
        h.answer(206, body, Content_Range=whole, ETag='"two"')
        return True

    def fault(h, content):
        h.server.files[h.path].faults.append(rest)
        return changed(at)(h, content)

    return fault


def other_range(at):
    """A part that begins elsewhere."""

    def rest(h, content):
        h.answer(206, content[5:], Content_Range=f"bytes 5-{len(content) - 1}/*", ETag='"one"')
        return True

    def fault(h, content):
        h.server.files[h.path].faults.append(rest)
        return reset(at)(h, content)

    return fault


def no_such_range(at):
    def fault(h, content):
        h.server.files[h.path].faults.append(answered(416)(0))
        return reset(at)(h, content)

    return fault


def without_ranges(at):
    def fault(h, content):
        file = h.server.files[h.path]
        h.serve(file, stop=at)
        file.ranges = False
        h.cut(reset=True)
        return True

    return fault


FAULTS = {
    "connection reset": reset,
    "truncated, length told": truncated,
    "truncated, length not told": truncated_without_length,
    "stalled": stalled,
    "400": answered(400),
    "429": answered(429),
    "429, try later": answered(429, Retry_After="0"),
    "500": answered(500),
    "503": answered(503),
    "503, try later": answered(503, Retry_After="0"),
    "a byte flipped": flipped,
    "a page instead": page,
    "packed": packed,
    "changed on the way": changed,
    "changed, and not said so": changed_unnoticed,
    "another range": other_range,
    "no such range": no_such_range,
    "no ranges": without_ranges,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_once_or_twice_and_the_file_is_there(server, cache, fault):
    rng = np.random.default_rng(sorted(FAULTS).index(fault))
    contents = {}
    for case in range(CASES):
        content = tile(case)
        at = int(rng.integers(0, len(content)))
        times = 1 if "changed" in fault or fault == "no ranges" else int(rng.integers(1, 3))
        faults = [FAULTS[fault](at) for _ in range(times)]
        server.files[f"/{case}.fits"] = Served(content, faults=faults)
        contents[case] = [content, tile(at + 10_000)]

    def get(case):
        return brought(server, f"/{case}.fits")

    with ThreadPoolExecutor(CASES) as pool:
        entries = list(pool.map(get, range(CASES)))
    for case, entry in enumerate(entries):
        expected = server.files[f"/{case}.fits"].content
        assert (cache_folder() / entry["file"]).read_bytes() == expected
        assert entry["fetched"]
    assert_nothing_is_corrupt(cache, [each for both in contents.values() for each in both])
    assert len(files_of(cache)) == CASES
    assert not list(cache.rglob("*.part"))
    # And never again.
    asked = sum(len(file.asked) for file in server.files.values())
    assert not any(get(case)["fetched"] for case in range(CASES))
    assert sum(len(file.asked) for file in server.files.values()) == asked


def test_what_has_come_is_not_asked_for_again(server):
    content = tile(1)
    faults = [reset(100_000), truncated(10_000), stalled(5_000)]
    file = server.files["/a.fits"] = Served(content, faults=faults)
    brought(server, "/a.fits")
    ranges = [headers.get("Range") for headers in file.asked]
    assert ranges[0] is None
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges[1:]]
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert all(headers["If-Range"] == '"one"' for headers in file.asked[1:])


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_no_other_try_mends_is_given_up_at_once(server, cache, status):
    file = server.files["/a.fits"] = Served(tile(1), faults=[answered(status)(9)] * 9)
    with pytest.raises(TileError, match=rf"answers {status}.*/a\.fits"):
        brought(server, "/a.fits")
    assert len(file.asked) == 1
    assert not files_of(cache)


@pytest.mark.parametrize("fault", ["a byte flipped", "a page instead", "500", "connection reset"])
def test_what_never_comes_is_given_up_in_one_line(server, cache, fault):
    spoil = FAULTS[fault]
    file = server.files["/a.fits"] = Served(tile(1), faults=[spoil(0)] * 99)
    with pytest.raises(TileError) as told:
        brought(server, "/a.fits", sha256="0" * 64 if fault == "a byte flipped" else "")
    assert len(file.asked) == SETTINGS.attempts
    assert "\n" not in str(told.value)
    assert not files_of(cache)


def test_tries_that_bring_something_are_not_counted(server):
    content = tile(1)
    steps = [reset(20_000) for _ in range(7)]
    server.files["/a.fits"] = Served(content, faults=steps)
    entry = brought(server, "/a.fits")
    assert (cache_folder() / entry["file"]).read_bytes() == content


def test_checksum_and_length_are_the_archives(server, tmp_path):
    content = tile(3)
    (tmp_path / "a").write_bytes(content)
    server.files["/a.fits"] = Served(content)
    entry = brought(server, "/a.fits", bytes=len(content), sha256=sha256(tmp_path / "a"))
    assert entry["bytes"] == len(content)
    with pytest.raises(TileError, match="bytes long, not 7 as the archive said"):
        brought(server, "/a.fits", bytes=7)


def test_a_disk_without_room_is_said_before_the_first_byte(server, cache, monkeypatch):
    server.files["/a.fits"] = Served(tile(1))
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(TileError, match=r"GB are left .* JAISP_CACHE"):
        brought(server, "/a.fits")
    assert not files_of(cache)


def test_a_disk_that_is_full_on_the_way_leaves_a_part_to_go_on_with(server, cache):
    content = tile(1)
    file = server.files["/a.fits"] = Served(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(TileError, match="too large"):
            brought(server, "/a.fits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not files_of(cache)
    entry = brought(server, "/a.fits")
    assert (cache_folder() / entry["file"]).read_bytes() == content
    assert file.asked[-1]["Range"].startswith("bytes=")


def test_a_file_longer_than_any_is_refused(server, cache):
    server.files["/a.fits"] = Served(tile(1))
    server.files["/b.fits"] = Served(tile(1), length=False)
    small = SETTINGS.model_copy(update={"most_bytes": 10_000})
    for name in "ab":
        wanted = Wanted("rubin", server.address(f"/{name}.fits"))
        with pytest.raises(TileError, match=r"fetch\.most_bytes"):
            download(wanted, small, verify_structure)
    assert not files_of(cache)


# A download for every line that comes, forked, so that the package is imported once.
FORKING = """
import os, sys
from jaisp.config.fetch import FetchConfig
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
for address in sys.stdin:
    child = os.fork()
    if child == 0:
        download(Wanted("rubin", address.strip()), FetchConfig(), verify_structure)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # its number is no other's until it was killed
    os.waitpid(child, 0)
"""


def _runs(process: int) -> bool:
    """Whether it has not ended; nobody has waited for it."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("part", range(2))
def test_killed_at_any_instant_it_goes_on(server, cache, part):
    """What a killed process leaves is gone on with, and nothing of it passes for whole."""
    rng = np.random.default_rng(part)
    content = tile(part, side=900)
    file = server.files["/a.fits"] = Served(content, faults=[slowly(1 << 16, 0.01)] * 99)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FORKING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    kills = 0
    with subprocess.Popen(command, env=environment, **pipes) as run:
        while not list(cache.rglob("*.json")) or kills < 12:
            run.stdin.write(f"{server.address('/a.fits')}\n")
            child = int(run.stdout.readline())
            # From where there is a part, the rest of the file takes half a second.
            while _runs(child) and len(file.asked) <= kills:
                time.sleep(0.002)
            time.sleep(float(rng.uniform(0, 0.25)))
            os.kill(child, signal.SIGKILL)
            while _runs(child):
                time.sleep(0.001)
            run.stdin.write("\n")
            kills = max(kills + 1, len(file.asked))
            assert_nothing_is_corrupt(cache, [content])
            if kills > 40:
                break
        run.stdin.close()
    entry = brought(server, "/a.fits")
    assert (cache_folder() / entry["file"]).read_bytes() == content
    assert any("Range" in headers for headers in file.asked)


def test_two_at_once_get_it_once(server):
    file = server.files["/a.fits"] = Served(tile(5, side=600), faults=[slowly(1 << 16, 0.01)])
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(lambda _: brought(server, "/a.fits"), range(6)))
    assert len(file.asked) == 1
    assert sum(entry["fetched"] for entry in entries) == 1
    assert len({entry["file"] for entry in entries}) == 1


def test_waiting_as_long_as_the_server_asks():
    assert retry_after("7") == 7
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < retry_after(later) <= 30


def test_a_reason_s_signs_do_not_reach_the_terminal(server):
    said = b"HTTP/1.1 404 \x1b[31mred\x07 " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"
    server.files["/a.fits"] = Served(b"", faults=[lambda h, _: (h.wfile.write(said), True)[1]])
    with pytest.raises(TileError, match=r"answers 404 \[31mred x+: ") as told:
        brought(server, "/a.fits")
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 200
