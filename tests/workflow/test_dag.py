"""Whole workflows on a two-patch field: what runs, what reruns, what is refused."""

import copy
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

import jaisp
from jaisp.files import folder_sha256
from tests.configs import small_config, write_config, write_tile
from tests.workflow.conftest import TWO_PATCHES, Workflow

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]

AFTER_TRAIN = {
    *("train", "embed_batch", "embed_basis", "map_batch", "embed"),
    *("evaluate_batch", "evaluate", "report"),
}
AFTER_PUBLISH = {"inject", *AFTER_TRAIN}


def test_a_run_ends_with_its_report_store_model_and_metrics(finished):
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    store = jaisp.open(finished.results / "patches.zarr")
    assert (len(store), sorted(store.surveys)) == (2, ["euclid_q1", "rubin"])
    model = jaisp.load(finished.results / "model")
    view = store[0]["rubin"]
    tokens = model.encode(view.flux[None], view.noise[None], survey="rubin", bands=view.bands)
    assert tokens.shape == (1, 16, 16, 16)
    metrics = json.loads((finished.results / "metrics.json").read_text())
    assert metrics["run"] == "two"
    assert "held" in metrics["skipped"]["retrieval"]
    logs = {path.stem for path in (finished.results / "logs").glob("*.log")}
    assert {"plan", "train", "warp.field.rubin", "embed.field.euclid_q1", "report"} <= logs


def test_a_finished_run_plans_nothing(finished):
    assert finished.planned() == set()


def test_one_stage_is_rerun_by_name(finished):
    assert "train" in finished.planned("train", "-f")
    assert finished.planned("train", "-f") == {"train"}


@pytest.mark.parametrize(
    ("section", "change", "expected"),
    [
        ("train", {"seed": 9}, AFTER_TRAIN),
        ("evaluate", {"seed": 9}, {"evaluate_batch", "evaluate", "report"}),
        ("inject", {"seed": 9}, {"inject", "evaluate_batch", "evaluate", "report"}),
        ("split", {"test": 0.0, "validation": 0.0, "seed": 2}, {"publish", *AFTER_PUBLISH}),
        ("store", {"flux": "float32"}, {"warp_batch", "warp", "publish", *AFTER_PUBLISH}),
    ],
)
def test_a_change_of_a_section_reruns_what_depends_on_it(finished, section, change, expected):
    content = copy.deepcopy(TWO_PATCHES)
    content[section] = content.get(section, {}) | change
    finished.write(content)
    try:
        assert finished.planned() == expected
    finally:
        finished.write(TWO_PATCHES)
        assert finished.planned() == set()


def test_a_second_run_says_so_and_stops(finished):
    with (finished.results / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = finished.run("--cores", "1", "-f", "plan")
    assert done.returncode == 2
    assert "another run is working here" in done.stderr
    assert "Traceback" not in done.stderr


def test_adding_a_survey_leaves_every_byte_of_the_others(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    grown = Workflow(tmp_path, TWO_PATCHES)
    groups = [grown.results / "patches.zarr" / "field" / name for name in ("rubin", "euclid_q1")]
    before = [(folder_sha256(g), g.stat().st_mtime_ns) for g in groups]
    content = copy.deepcopy(TWO_PATCHES)
    content["surveys"]["rubin_i"] = {
        "bands": ["i"],
        "pixel_arcsec": 0.2,
        "archive": {"kind": "simulated", "instrument": "rubin"},
    }
    grown.write(content)
    done = grown.run("publish", "--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(folder_sha256(g), g.stat().st_mtime_ns) for g in groups] == before
    assert "rubin_i" in jaisp.open(grown.results / "patches.zarr").surveys


def test_a_killed_run_goes_on_and_ends_with_the_same_store(finished, tmp_path):
    expected = folder_sha256(finished.results / "patches.zarr")
    moments = random.Random(3)
    workflow = Workflow(tmp_path, TWO_PATCHES)
    command = workflow.command("publish", "--cores", "2")
    for _ in range(3):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=workflow.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moments.uniform(4.0, 12.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = workflow.run("publish", "--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert folder_sha256(workflow.results / "patches.zarr") == expected


def refused(folder, content, *arguments):
    """Run a config that has a mistake; returns the last line that the user sees."""
    workflow = Workflow(folder, {"run": "x"} | content)
    done = workflow.run("publish", "--cores", "1", *arguments)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def files(tmp_path):
    write_tile(tmp_path / "sharp.fits", 0.1, seed=1)
    write_tile(tmp_path / "wide.fits", 0.2, seed=2)
    return tmp_path


def test_unknown_key(files):
    line = refused(files, small_config(colour=1))
    assert line == "jaisp: config.yaml: colour: unknown key; remove it or see config/schema.json"


def test_a_run_name_that_leaves_the_results(files):
    line = refused(files, small_config(run="../x"))
    assert line.startswith("jaisp: config.yaml: run: ")
    assert not (files / "x").exists()


def test_missing_file(files):
    (files / "wide.fits").unlink()
    line = refused(files, small_config())
    assert "surveys.wide.archive.images[0].science.path: no such file" in line


def test_a_band_that_the_archive_lacks(files):
    content = small_config()
    content["surveys"]["wide"]["bands"] = ["r", "q"]
    assert "surveys.wide.bands: the archive has no image of band 'q'" in refused(files, content)


def test_surveys_that_do_not_overlap(files):
    content = small_config()
    content["surveys"]["wide"]["archive"]["images"][0]["wcs"] = {
        "ra": 10.0,
        "dec": 2.0,
        "pixel_arcsec": 0.2,
    }
    line = refused(files, content)
    assert line.startswith("jaisp: ")
    assert "wide" in line


@pytest.mark.parametrize("damage", ["truncated", "no celestial WCS"])
def test_the_only_tile_of_a_band_is_bad(files, damage):
    path = files / "wide.fits"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3000])
    else:
        path.unlink()
        write_tile(path, 0.2, wcs=False)
    line = refused(files, small_config())
    assert "surveys.wide: no good tile of band r" in line
    assert damage in line
    assert (files / "results/small/problems.ecsv").exists()


def test_one_bad_tile_of_several_is_reported_and_the_run_goes_on(files):
    write_tile(files / "other.fits", 0.2, wcs=False)
    content = small_config()
    images = content["surveys"]["wide"]["archive"]["images"]
    images.append({**images[0], "science": {"path": "other.fits"}})
    write_config(files, content)
    workflow = Workflow(files, content)
    done = workflow.run("publish", "--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "other.fits" in (workflow.results / "problems.ecsv").read_text()
    assert len(jaisp.open(workflow.results / "patches.zarr")) == 1
