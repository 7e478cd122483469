"""A token that expires on the way: given up at once, by its name, and gone on with a new one."""

import logging
import sys

import numpy as np
import pytest

from jaisp.archives.table import verified_planes
from jaisp.cache import cache_folder
from jaisp.config import load_config
from jaisp.config.fetch import FetchConfig
from jaisp.config.survey import Credentials
from jaisp.errors import TileError
from jaisp.fetch import BATCHES, fetch
from jaisp.files import read_problems, write_receipt
from jaisp.plan import plan
from jaisp.transfer import Wanted, download
from jaisp.transfer.credentials import source_of
from tests.configs import small_config, write_config, write_small_field
from tests.transfer.server import Served, serving

CASES = 24
OLD, NEW = "correct-horse", "battery-staple"


@pytest.fixture
def server():
    with serving() as server:
        yield server


def expiring(ranges):
    """So many answers are cut, each after some bytes; then the old token is good no more."""
    left = list(ranges)

    def fault(h, _):
        if left:
            file = h.server.files[h.path]
            start = int(h.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            h.serve(file, stop=left.pop(0) - start)
            h.cut()
            return True
        if h.headers["Authorization"] == f"Bearer {NEW}":
            return False
        h.answer(401, b"expired")
        return True

    return fault


def get(server, name, token):
    wanted = Wanted("rubin", server.address(name))
    header = {"Authorization": f"Bearer {token}"}
    return download(wanted, FetchConfig(attempts=4), lambda path, digest: None, header)


def test_what_came_is_kept_for_a_new_token(server, monkeypatch):
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "FIRST_WAIT_S", 0.001)
    rng = np.random.default_rng(1)
    for case in range(CASES):
        content = rng.bytes(100_000)
        ends = sorted(rng.choice(np.arange(1, 99_999), int(rng.integers(1, 4)), replace=False))
        name = f"/{case}.fits"
        file = server.files[name] = Served(content, faults=[expiring(ends)] * 9)
        # One fault for all requests, so that it knows what came before.
        with pytest.raises(TileError, match=rf"answers 401 .*{name} refuses our cred") as told:
            get(server, name, OLD)
        assert "\n" not in str(told.value)
        assert OLD not in str(told.value)
        asked = len(file.asked)
        assert asked == len(ends) + 1
        entry = get(server, name, NEW)
        assert (cache_folder() / entry["file"]).read_bytes() == content
        (again,) = file.asked[asked:]
        assert again["Range"] == f"bytes={ends[-1]}-"
        assert again["Authorization"] == f"Bearer {NEW}"


def test_where_a_credential_comes_from(tmp_path):
    token = tmp_path / "token"
    assert source_of(Credentials(token_env="A"), "x") == "x.token_env, the variable A"
    assert source_of(Credentials(token_file=token), "x") == f"x.token_file, {token}"
    assert source_of(Credentials(login_env="B"), "x") == "x.login_env, the variable B"


def test_a_run_says_which_credential_and_goes_on_with_a_new_one(
    server, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESAME", OLD)
    (tmp_path / "there").mkdir()
    write_small_field(tmp_path / "there")
    content = small_config(fetch={"attempts": 2, "timeout_s": 2})
    for name in ("sharp", "wide"):
        tile = (tmp_path / "there" / f"{name}.fits").read_bytes()
        server.files[f"/{name}.fits"] = Served(tile, faults=[expiring([70_000])] * 9)
        content["surveys"][name]["archive"] |= {
            "root": server.address(""),
            "token_env": "SESAME",
        }
    config = load_config(write_config(tmp_path, content))
    plan(config)
    fetch_all(config)
    problems = read_problems(config)
    assert [problem["survey"] for problem in problems] == ["sharp", "wide"]
    for problem in problems:
        assert "answers 401 " in problem["reason"]
        key = f"surveys.{problem['survey']}.archive.token_env, the variable SESAME"
        assert key in problem["reason"]
    assert OLD not in str(problems) + caplog.text
    monkeypatch.setenv("SESAME", NEW)
    fetch_all(config)
    assert not read_problems(config)
    assert len(verified_planes(config)) == 4
    assert all(file.asked[-1]["Range"] == "bytes=70000-" for file in server.files.values())


def fetch_all(config):
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
