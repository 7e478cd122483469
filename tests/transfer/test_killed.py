"""`jaisp fetch` killed with -9 in any phase: the next run ends as if nothing had been."""

import multiprocessing
import signal

import numpy as np
import pytest

from jaisp.archives.table import read_tiles
from jaisp.config import load_config
from jaisp.files import sha256
from jaisp.plan import plan
from tests.configs import small_config, write_config, write_small_field
from tests.transfer.killed import PHASES, fetch
from tests.transfer.server import Served, serving, slowly

KILLS = 20
NAMES = ("sharp", "wide")
# Processes that have everything imported, and none of this one's threads.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.transfer.killed"])


@pytest.fixture
def field(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    write_small_field(tmp_path / "there")
    with serving() as server:
        content = small_config(fetch={"timeout_s": 5})
        for name in NAMES:
            tile = (tmp_path / "there" / f"{name}.fits").read_bytes()
            server.files[f"/{name}.fits"] = Served(tile)
            content["surveys"][name]["archive"]["root"] = server.address("")
        plan(load_config(write_config(tmp_path, content)))
        yield server, tmp_path


def run(folder, *killed):
    process = CONTEXT.Process(target=fetch, args=(folder, folder / "cache", *killed))
    process.start()
    process.join(120)
    return process.exitcode


def whole(server, folder):
    """Files of which all bytes are here, under whatever name."""
    here = [p.read_bytes() for p in (folder / "cache").rglob("*") if p.is_file()]
    return {name for name, file in server.files.items() if file.content in here}


def assert_nothing_is_corrupt(server, folder):
    """What has a final name is what its name says."""
    contents = [file.content for file in server.files.values()]
    for path in (folder / "cache").rglob("*-*.fits"):
        assert path.read_bytes() in contents
        assert path.name.startswith(sha256(path)[:32])


@pytest.mark.parametrize("phase", PHASES)
def test_the_next_run_ends_well_and_asks_for_nothing_twice(field, phase):
    server, folder = field
    rng = np.random.default_rng(sorted(PHASES).index(phase))
    for file in server.files.values():
        file.faults = [slowly(1 << 15, 0.002)] * 99 * (phase == "while receiving")
    kills = 0
    while kills < KILLS:
        complete = whole(server, folder)
        asked = {name: len(server.files[name].asked) for name in complete}
        longest = 0.06 if phase == "while receiving" else 0.004
        code = run(folder, phase, float(rng.uniform(0, longest)))
        assert {name: len(server.files[name].asked) for name in complete} == asked
        assert_nothing_is_corrupt(server, folder)
        if code == 0:  # nothing of this phase is left to do: begin again
            start_anew(server, folder)
            continue
        assert code == -signal.SIGKILL
        kills += 1
    complete = whole(server, folder)
    asked = {name: len(server.files[name].asked) for name in complete}
    assert run(folder) == 0
    assert {name: len(server.files[name].asked) for name in complete} == asked
    assert_the_run_is_whole(server, folder)


def start_anew(server, folder):
    assert_the_run_is_whole(server, folder)
    for path in (folder / "cache").rglob("*"):
        if path.is_file():
            path.unlink()


def assert_the_run_is_whole(server, folder):
    """The same cache, whatever came before: both files, an index of each, and no part."""
    assert_nothing_is_corrupt(server, folder)
    cache = folder / "cache"
    assert len(list(cache.rglob("*-*.fits"))) == len(NAMES)
    assert len(list(cache.rglob("downloads/*.json"))) == len(NAMES)
    assert not list(cache.rglob("*.part*"))
    tiles = read_tiles(load_config(folder / "config.yaml"), fetched=True)
    assert sorted(tile.survey for tile in tiles) == list(NAMES)
    for tile in tiles:
        name = tile.science.path.name.partition("-")[2]
        assert name == f"{tile.survey}.fits"
