"""Files that are whole or not there; locks; problems."""

import fcntl
import os
import subprocess
import sys

import pytest
from astropy.table import Table

from jaisp.config import load_config
from jaisp.errors import UserError
from jaisp.files import (
    atomic_write,
    clear_problems,
    folder_sha256,
    hold_run,
    read_json,
    read_problems,
    record_problem,
    replace_folder,
    write_json,
    write_problems,
)
from tests.configs import small_config, write_config


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def half_write():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_write()
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    code = (
        "import os, signal, sys\n"
        "from jaisp.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert read_json(path) == {"old": 1}


def test_equal_content_gives_equal_bytes(tmp_path):
    write_json(tmp_path / "one", {"b": 1, "a": [1.5]})
    write_json(tmp_path / "two", {"a": [1.5], "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_replacing_a_folder_leaves_nothing_of_the_old_one(tmp_path):
    for name, content in (("new", "2"), ("old", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(content)
    expected = folder_sha256(tmp_path / "new")
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert folder_sha256(tmp_path / "old") == expected
    assert not (tmp_path / "new").exists()


def test_a_run_is_held_by_one_process(tmp_path):
    descriptor = hold_run(tmp_path)
    with pytest.raises(UserError, match="another run is working here"):
        hold_run(tmp_path)
    os.close(descriptor)
    os.close(hold_run(tmp_path))
    with (tmp_path / ".lock").open() as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_problems_are_gathered_and_forgiven_by_stage_and_survey(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(write_config(tmp_path, small_config()))
    record_problem(config, "warp field", "wide", "r", "a.fits[0]", "no\n  WCS")
    record_problem(config, "warp field", "wide", "r", "a.fits[0]", "no WCS")
    record_problem(config, "fetch0", "sharp", "r", "b.fits[0]", "truncated")
    assert write_problems(config) == 2
    table = Table.read(config.results / "problems.ecsv")
    assert list(table["tile"]) == ["b.fits[0]", "a.fits[0]"]
    assert list(table["reason"]) == ["truncated", "no WCS"]
    clear_problems(config, "warp field", "sharp")
    assert len(read_problems(config)) == 2
    clear_problems(config, "warp field", "wide")
    assert [p["stage"] for p in read_problems(config)] == ["fetch0"]
