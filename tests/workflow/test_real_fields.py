"""The ready configs of the real fields, run through Snakemake on the real images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaisp

ROOT = Path(__file__).resolve().parents[2]
# Nothing is asked of what is learnt here: a third of the configs' steps do.
FEW_STEPS = ("--config", "train={steps: 20}")
pytestmark = [pytest.mark.workflow, pytest.mark.realdata]


def run(folder: Path, data: Path, name: str, *arguments: str) -> Path:
    """Run a ready config in `folder`; returns its results."""
    command = [str(Path(sys.executable).with_name("snakemake")), *arguments, "--cores", "1"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / "profiles/default")]
    command += ["--configfile", str(ROOT / "config" / f"{name}.yaml")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "JAISP_DATA": str(data)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder / "results" / name


def alignment(results: Path) -> dict[tuple[str, str], dict]:
    """Rows of the group `alignment`, by what is compared."""
    metrics = json.loads((results / "metrics.json").read_text())
    assert "no held-out sky" in metrics["skipped"]["retrieval"]
    return {(row["query"], row["target"]): row for row in metrics["groups"]["alignment"]}


def assert_page(results: Path, *words: str) -> None:
    page = (results / "report.html").read_text(encoding="utf-8")
    for word in (*words, "no held-out sky"):
        assert word in page
    assert (results / "maps").is_dir()
    assert "no reason" not in page


def test_kids_viking_galex(tmp_path, real_data):
    results = run(tmp_path, real_data, "kids_viking_galex", *FEW_STEPS)
    assert_page(results, "vst", "vista", "galex")
    rows = alignment(results)
    infrared = rows["vst:r", "vista:K"]
    # The published images, registered by phase correlation: 0.045″ east and 0.004″ south.
    assert infrared["n"] >= 20
    assert infrared["dx_arcsec"] == pytest.approx(0.045, abs=0.05)
    assert infrared["dy_arcsec"] == pytest.approx(-0.004, abs=0.05)
    # Likewise 0.05″ east and 0.38″ north, in pixels of 1.5″.
    ultraviolet = rows["vst:r", "galex:NUV"]
    assert ultraviolet["phase_dx_arcsec"] == pytest.approx(0.05, abs=0.15)
    assert ultraviolet["phase_dy_arcsec"] == pytest.approx(0.38, abs=0.15)


def test_euclid_des(tmp_path, real_data):
    results = run(tmp_path, real_data, "euclid_des", *FEW_STEPS)
    assert_page(results, "euclid_q1", "des")
    rows = alignment(results)
    for (query, target), row in rows.items():
        most = 0.21 if "des" in f"{query}{target}" else 0.06
        offset = (row["dx_arcsec"] ** 2 + row["dy_arcsec"] ** 2) ** 0.5
        assert offset < most, (query, target, offset)
    store = jaisp.open(results / "patches.zarr")
    both = [patch for patch in store if {"euclid_q1", "des"} <= set(patch.surveys)]
    assert len(both) >= 2
    # The sentinels of 1e16 in the RMS planes never become noise.
    assert max(float(np.nanmax(patch["euclid_q1"].noise)) for patch in both) < 1e6


def test_hsc_hst(tmp_path, real_data):
    results = run(tmp_path, real_data, "hsc_hst", *FEW_STEPS)
    assert_page(results, "hsc", "hst")
    for row in alignment(results).values():
        assert abs(row["phase_dx_arcsec"]) < 0.1
        assert abs(row["phase_dy_arcsec"]) < 0.1


def test_four_patches_of_the_nine_band_field(tmp_path, real_data):
    sky = "sky={ra: 180.0, dec: 0.0, width_arcmin: 1.7, height_arcmin: 1.7}"
    results = run(tmp_path, real_data, "kids_viking_wide", "publish", "--config", sky)
    store = jaisp.open(results / "patches.zarr")
    assert len(store) == 4
    view = store[0]["vista"]
    assert view.bands == ["Z", "Y", "J", "H", "Ks"]
    assert view.grid_arcsec == pytest.approx(0.32)
    assert (view.coverage == 1.0).all()
