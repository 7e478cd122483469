"""The commands as typed: one line for what the user did wrong, status 2, no traceback."""

import fcntl
import subprocess
import sys

import pytest
import yaml

import jaisp
from tests.configs import small_config, write_config, write_small_field

COMMAND = [sys.executable, "-c", "from jaisp.cli import main; main()"]


def jaisp_command(folder, *arguments):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_and_help(tmp_path):
    assert jaisp_command(tmp_path, "--version").stdout.strip() == f"jaisp {jaisp.__version__}"
    listed = jaisp_command(tmp_path, "--help").stdout
    stages = ("simulate", "plan", "fetch", "warp", "publish", "train", "embed", "evaluate")
    for command in (*stages, "report", "config"):
        assert command in listed


def test_a_resolved_config_spells_out_every_default(tmp_path):
    path = write_config(tmp_path, small_config())
    shown = yaml.safe_load(jaisp_command(tmp_path, "config", "--config", str(path)).stdout)
    assert shown["warp"] == {"kernel": "lanczos3", "combine": "margin"}
    assert shown["data"] == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "--config", "none.yaml"], "none.yaml: can't be read"),
        (["fetch", "--config", "config.yaml"], "run `jaisp plan` first"),
        (["fetch", "--config", "config.yaml", "--batch", "99"], "--batch: 99"),
        (["warp", "--config", "config.yaml", "--survey", "hst"], "--survey: 'hst'"),
        (["publish", "--config", "config.yaml"], "patches.zarr"),
        (["train", "--config", "config.yaml"], "patches.zarr"),
        (["evaluate"], "give --config FILE, or --compare RUN RUN"),
        (["evaluate", "--compare", "a"], "name two runs or more"),
        (["evaluate", "--compare", "a", "b"], "run `jaisp evaluate` first"),
        (["config"], "give one of --schema, --reference or --config"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, arguments, expected):
    write_small_field(tmp_path)
    done = jaisp_command(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("jaisp: ")
    assert expected in line


def test_stages_leave_their_receipts_and_logs(tmp_path):
    write_small_field(tmp_path)
    for stage in ("plan", "fetch", "warp", "publish"):
        done = jaisp_command(tmp_path, stage, "--config", "config.yaml", "--log", f"{stage}.log")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "results/small/receipts" / stage / "all.json").is_file()
        assert (tmp_path / f"{stage}.log").is_file()
    patch = jaisp.open(tmp_path / "results/small/patches.zarr")["field/0"]
    assert {"sharp", "wide"} == set(patch.surveys)
    # The source that the tiles hold stands in the middle of both, at the same flux density.
    for survey in patch.surveys:
        flux = patch[survey].flux[0]
        middle = flux.shape[0] // 2
        assert flux[middle - 2 : middle + 2, middle - 2 : middle + 2].max() == flux.max()


def test_two_jobs_on_one_group_take_turns(tmp_path):
    """The second says that it waits, and keeps what the first one has made."""
    write_small_field(tmp_path)
    for stage in ("plan", "fetch"):
        assert jaisp_command(tmp_path, stage, "--config", "config.yaml").returncode == 0
    results = tmp_path / "results" / "small"
    (results / ".partial").mkdir(exist_ok=True)
    warp = [*COMMAND, "warp", "--config", "config.yaml", "--cell", "field", "--survey", "wide"]
    options = {"cwd": tmp_path, "stderr": subprocess.PIPE, "text": True}
    with (results / ".partial" / "field.wide.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jobs = [subprocess.Popen(warp, **options) for _ in range(2)]
        first_lines = [job.stderr.readline() for job in jobs]
        for job, line in zip(jobs, first_lines, strict=True):
            assert "field.wide.lock: held by another job; waiting" in line
            assert job.poll() is None
        assert not (results / "patches.zarr").exists()
        assert not (results / "receipts" / "warp").exists()
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert sorted("whole and up to date, kept" in text for text in said) == [False, True]
    assert (results / "receipts" / "warp" / "field.wide.json").is_file()
