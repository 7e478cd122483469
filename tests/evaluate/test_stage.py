"""What the stage writes, and what it skips."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaisp.config import Config
from jaisp.config.evaluate import PARTS, EvaluateConfig
from jaisp.errors import UserError
from jaisp.evaluate.bootstrap import interval, mean_interval, sky_units
from jaisp.evaluate.gather import gather_evaluated
from jaisp.evaluate.parts import MEASURES
from jaisp.evaluate.plots.style import plain
from jaisp.evaluate.stage import evaluate_part, measure
from jaisp.files import write_receipt
from tests.evaluate.skies import Noise, Oracle, publish_sky, sky_config


def evaluate(config: Config) -> dict:
    """Every part in turn, gathered."""
    for part in PARTS:
        write_receipt(config, "evaluate", part, evaluate_part(config, part))
    return gather_evaluated(config)


def test_every_measure_is_in_one_part():
    measured = [name for names in PARTS.values() for name in names]
    assert sorted(measured) == sorted(MEASURES)


def test_groups_and_reasons(oracle):
    assert set(oracle.groups) == {"retrieval", "collapse", "alignment", "withheld"}
    known = {"position", "transfer", "registration", "deblending"}
    assert set(oracle.skipped) == known | {"photometry", "morphology", "reconstruction"}
    assert all("jaisp inject" in oracle.skipped[name] for name in known)


def test_plots_and_their_numbers(oracle, tmp_path):
    for plot in oracle.plots:
        plot.write(tmp_path)
    names = {"retrieval", "ranks", "similarity", "bands", "spectrum", "alignment"}
    names |= {"withheld_retrieval"}
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("png", "json")
    }
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    bars = json.loads((tmp_path / "retrieval.json").read_text())
    assert bars[0]["model"] == pytest.approx(oracle.groups["retrieval"][0]["top1"], rel=1e-5)


def test_without_a_model_alignment_alone_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = sky_config(side_arcsec=76.8, test=0.0)
    publish_sky(config)
    stale = config.results / "figures" / "retrieval.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    metrics = evaluate(config)
    assert json.loads((config.results / "metrics.json").read_text()) == metrics
    assert set(metrics["groups"]) == {"alignment"}
    assert metrics["skipped"]["retrieval"] == "no trained model"
    assert metrics["model"] is None
    assert all(row["field"] == "sky" for row in metrics["groups"]["alignment"])
    assert not stale.exists()
    assert (config.results / "figures" / "alignment.png").exists()


def test_without_held_out_sky_the_encoders_are_not_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = publish_sky(sky_config(side_arcsec=76.8, test=0.0))
    found = measure(store, EvaluateConfig(edge_tokens=10), (Oracle(), Noise()))
    groups, skipped = found.groups, found.skipped
    assert set(groups) == {"alignment"}
    assert skipped["retrieval"] == skipped["collapse"]
    assert "no held-out sky" in skipped["retrieval"]


def test_without_sources_the_encoders_are_not_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = publish_sky(sky_config(side_arcsec=192, test=0.3), per_arcmin2=0)
    found = measure(store, EvaluateConfig(snr_min=8, edge_tokens=10), (Oracle(), Noise()))
    groups, skipped = found.groups, found.skipped
    assert "retrieval" not in groups
    assert skipped["retrieval"].startswith("no source")
    assert all(row["n"] == 0 and row["dx_arcsec"] is None for row in groups["alignment"])


def test_no_store_is_the_users_to_mend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        evaluate(sky_config())


def test_units_of_sky():
    patches = np.arange(100) // 2
    assert sky_units(patches, [f"o7p{i:07d}" for i in range(50)])[1] == "cell"
    assert sky_units(patches, ["field"] * 50)[1] == "patch"
    assert sky_units(np.zeros(9, int), ["field"])[1] == "source"


def test_intervals_cover_the_mean_and_widen_with_the_unit():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), 25)
    values = rng.normal(size=40)[units] + 0.1 * rng.normal(size=1000)
    low, high = mean_interval(values, units, 2000, 0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(40), rel=0.3)
    alone = mean_interval(values, np.arange(1000), 2000, 0)
    assert alone[1] - alone[0] < (high - low) / 3
    same = interval(lambda drawn: float(values[drawn].mean()), units, 2000, 1)
    assert same == pytest.approx((low, high), abs=0.05)


def test_plain_numbers():
    found = plain({"a": np.float32(np.nan), "b": np.arange(2), "c": (np.True_, Path("x").name)})
    assert found == {"a": None, "b": [0, 1], "c": [True, "x"]}
