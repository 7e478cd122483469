"""Whatever fails on the way from a bucket, an object arrives whole, once, or is given up.

The server that fails on purpose has buckets as folders, as any store for S3 has.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaisp.cache import cache_folder
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
from jaisp.transfer.sizes import size_of
from tests.transfer.server import Served, serving
from tests.transfer.test_faults import (
    FAULTS,
    answered,
    assert_nothing_is_corrupt,
    files_of,
    reset,
    tile,
)

CASES = 24


@pytest.fixture(autouse=True)
def cache(own_cache, monkeypatch):
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "FIRST_WAIT_S", 0.001)
    return own_cache


@pytest.fixture
def server():
    with serving() as server:
        yield server


def brought(server, key):
    settings = FetchConfig(attempts=4, timeout_s=1, per_host=32, s3_endpoint=server.address(""))
    return download(Wanted("ps1", f"s3://bucket/{key}"), settings, verify_structure)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_and_the_object_is_there(server, cache, fault):
    rng = np.random.default_rng(sorted(FAULTS).index(fault))
    contents = {}
    for case in range(CASES):
        content = tile(case)
        at = int(rng.integers(0, len(content)))
        server.files[f"/bucket/{case}.fits"] = Served(content, faults=[FAULTS[fault](at)])
        contents[case] = [content, tile(at + 10_000)]

    def get(case):
        return brought(server, f"{case}.fits")

    with ThreadPoolExecutor(CASES) as pool:
        entries = list(pool.map(get, range(CASES)))
    for case, entry in enumerate(entries):
        expected = server.files[f"/bucket/{case}.fits"].content
        assert (cache_folder() / entry["file"]).read_bytes() == expected
    assert_nothing_is_corrupt(cache, [each for both in contents.values() for each in both])
    assert len(files_of(cache)) == CASES
    assert not list(cache.rglob("*.part"))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_no_other_try_mends_is_given_up_at_once(server, cache, status):
    file = server.files["/bucket/a.fits"] = Served(tile(1), faults=[answered(status)(9)] * 9)
    with pytest.raises(TileError, match=rf"^bucket answers {status}.* s3://bucket/a\.fits"):
        brought(server, "a.fits")
    assert len(file.asked) == 1
    assert not files_of(cache)


@pytest.mark.parametrize("fault", ["500", "a page instead", "connection reset", "429"])
def test_what_never_comes_is_given_up_in_one_line(server, cache, fault):
    file = server.files["/bucket/a.fits"] = Served(tile(1), faults=[FAULTS[fault](0)] * 99)
    with pytest.raises(TileError) as told:
        brought(server, "a.fits")
    assert len(file.asked) == 4
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 200
    assert not files_of(cache)


def test_another_region_is_said_with_what_to_do(server):
    file = server.files["/bucket/a.fits"] = Served(b"", faults=[answered(301)(0)] * 9)
    with pytest.raises(TileError, match=r"another region; name it with fetch\.s3_endpoint"):
        brought(server, "a.fits")
    assert len(file.asked) == 1


def test_without_a_tag_that_holds_it_is_begun_anew(server):
    content = tile(1)
    for key, tag in (("a.fits", 'W/"one"'), ("b.fits", None)):
        faults = [reset(100_000)]
        file = server.files[f"/bucket/{key}"] = Served(content, tag=tag, faults=faults)
        brought(server, key)
        assert ["Range" in asked for asked in file.asked] == [False, False]


def test_a_size_is_told_where_it_can_be(server):
    server.files["/bucket/a.fits"] = Served(b"content")
    settings = FetchConfig(s3_endpoint=server.address(""))
    assert size_of("s3://bucket/a.fits", settings) == 7
    assert size_of("s3://bucket/b.fits", settings) is None
    assert size_of("s3://bucket/../a.fits", settings) is None
