"""What a run would take: counts that can be counted, and words where something isn't known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaisp.config import load_config, parse_config
from jaisp.estimate import Amounts, Sky, estimate, read_rates
from jaisp.sky import cells
from jaisp.store.publish import publish
from tests.store.groups import fill_store, small_config

CONFIGS = Path(__file__).resolve().parent.parent / "config"
SURVEY = {"bands": ["r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}}


def test_the_rates_that_are_shipped_are_whole():
    rates = read_rates()
    assert set(rates["stages"]["core_s"]) == {
        *("simulate", "fetch", "warp", "publish", "inject", "maps", "evaluate", "train", "embed"),
    }
    for took in rates["stages"]["core_s"].values():
        assert took["a_job"] >= 0
        assert took.get("a_unit", 0) >= 0
    assert 0.3 < rates["stages"]["bytes"]["store_pixel"] < 4
    assert all(value > 0 for value in rates["stages"]["bytes"].values())
    assert {row["device"] for row in rates["encoders"]} == {"cpu", "gpu"}
    for row in rates["encoders"]:
        assert row["train_s_a_megapixel"] > 0
        assert row["machine"]
        assert row["date"]


def test_patches_and_files_are_those_of_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small_config()
    store = fill_store(config)
    publish(config)
    sky = Sky(config, cells(config))
    amounts = Amounts(config, sky)
    groups = [file for file in (store / "field").rglob("*") if file.is_file()]
    # Beside them: the cell's own file is publish's; the warp's receipts, log and note are its.
    assert sky.patches == 16
    assert amounts.store_files == len(groups) - 1
    pixels = sum(
        16 * len(survey.bands) * config.patch_pixels(name) ** 2
        for name, survey in config.surveys.items()
    )
    assert amounts.megapixels == pytest.approx(pixels / 1e6)


@pytest.mark.parametrize("side", [60.0, 300.0])
def test_cells_that_are_looked_at_tell_of_all(tmp_path, side):
    content = {
        "run": "wide",
        "sky": {"ra": 53.0, "dec": -28.0, "width_arcmin": side, "height_arcmin": side},
        "surveys": {"a": SURVEY, "b": SURVEY},
    }
    config = parse_config(content, tmp_path / "wide.yaml")
    sky_cells = cells(config)
    found = estimate(config)
    assert found.cells == len(sky_cells)
    assert found.patches == pytest.approx(sum(map(len, sky_cells)), rel=0.02)
    assert found.exact == (found.patches == sum(map(len, sky_cells)))
    assert found.area_deg2 == pytest.approx((side / 60) ** 2, rel=0.05)


def test_twice_the_bands_take_twice_as_much(tmp_path):
    def rows(bands):
        survey = {**SURVEY, "bands": bands}
        content = {
            "run": "wide",
            "sky": {"ra": 53.0, "dec": -28.0, "width_arcmin": 20, "height_arcmin": 20},
            "surveys": {"a": survey, "b": survey},
        }
        found = estimate(parse_config(content, tmp_path / "wide.yaml"))
        return {row.stage: row for row in found.rows}

    one, two = rows(["r"]), rows(["r", "i"])
    assert two["warp"].bytes == pytest.approx(2 * one["warp"].bytes)
    assert two["embed"].bytes == one["embed"].bytes
    assert one["train"].core_hours < two["train"].core_hours < 2 * one["train"].core_hours
    assert one["warp"].core_hours < two["warp"].core_hours < 2 * one["warp"].core_hours


def test_more_training_sky_for_probes_is_more_to_measure(tmp_path):
    content = {
        "run": "wide",
        "sky": {"ra": 53.0, "dec": -28.0, "width_arcmin": 20, "height_arcmin": 20},
        "surveys": {"a": SURVEY, "b": SURVEY},
    }
    config = parse_config(content, tmp_path / "wide.yaml")
    sky = Sky(config, cells(config))

    def evaluated(**settings):
        changed = config.evaluate.model_copy(update=settings)
        return Amounts(config.model_copy(update={"evaluate": changed}), sky).evaluated

    as_many = evaluated(patches=20)
    assert evaluated(patches=20, train_patches=20) == as_many
    assert evaluated(patches=20, train_patches=60) == pytest.approx(2 * as_many)
    assert evaluated(patches=20, train_patches=10_000) < 20 * as_many  # there is no more sky


def test_the_download_is_told_once_it_is_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIGS / "ecdfs_rubin_euclid.yaml")
    found = estimate(config)
    (fetch,) = [row for row in found.rows if row.stage == "fetch"]
    assert (fetch.bytes, fetch.core_hours) == (None, None)
    assert any("known after `jaisp plan`" in note for note in found.notes)


def test_sizes_that_were_not_measured_are_no_numbers(tmp_path):
    rates = read_rates()
    content = {"run": "x", "sky": {"ra": 1, "dec": 1, "width_arcmin": 5, "height_arcmin": 5}}
    content |= {"surveys": {"a": SURVEY, "b": SURVEY}, "model": {"size": "base"}}
    config = parse_config(content, tmp_path / "x.yaml")
    found = estimate(config, {**rates, "encoders": []})
    (train,) = [row for row in found.rows if row.stage == "train"]
    assert (train.core_hours, train.gpu_hours) == (None, None)
    assert sum("`base` encoders: not measured" in note for note in found.notes) == 2


@pytest.mark.parametrize("name", ["demo", "survey", "kids_viking_wide", "euclid_des"])
def test_the_command_writes_nothing_and_needs_nobody(tmp_path, name):
    run = [sys.executable, "-c", "from jaisp.cli import main; main()", "plan", "--estimate"]
    run += ["--config", str(CONFIGS / f"{name}.yaml")]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "together" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert "torch" not in json.dumps(done.stderr)
