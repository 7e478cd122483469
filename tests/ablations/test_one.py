"""One arm: it uses its base's store, and what is done with the same config and code is kept."""

import os
import shutil
from pathlib import Path

import pytest

import jaisp.ablations.arms as arms
import jaisp.ablations.one as one
import jaisp.evaluate.stage as stage
import jaisp.train
from jaisp.ablations.arms import code_key
from jaisp.ablations.one import read_failure, run_arm
from jaisp.errors import UserError
from jaisp.files import read_json
from tests.train.interrupt import interrupted_at

WEIGHTS = "model/model.safetensors"


def results(name="plain-1"):
    return Path("results/arms") / name


def refuse(*arguments, **more):
    raise AssertionError("done again")


def test_an_arm_is_trained_on_its_base_measured_and_kept(ablations, monkeypatch):
    receipt = run_arm(ablations, "plain", 1)
    assert receipt == read_json("results/arms/receipts/arm/plain-1.json")
    link = results() / "patches.zarr"
    assert os.readlink(link) == "../../small/patches.zarr"
    assert not (results() / "injected").exists()
    assert "no held-out sky" in read_json(results() / "metrics.json")["skipped"]["retrieval"]
    timing = read_json(results() / "timing.json")
    assert timing["seconds"] > 0
    assert timing["machine"]
    monkeypatch.setattr(jaisp.train, "train", refuse)
    monkeypatch.setattr(stage, "evaluate_part", refuse)
    assert run_arm(ablations, "plain", 1) == receipt
    with pytest.raises(AssertionError, match="done again"):
        run_arm(ablations, "plain", 2)


def test_other_code_of_the_measurement_trains_nothing_anew(ablations, monkeypatch):
    run_arm(ablations, "plain", 1)
    before = (results() / WEIGHTS).stat().st_mtime_ns

    def edited(stages):
        return code_key(stages) + "x" * ("evaluate" in stages)

    for module in (arms, one):
        monkeypatch.setattr(module, "code_key", edited)
    run_arm(ablations, "plain", 1)
    assert (results() / WEIGHTS).stat().st_mtime_ns == before
    made_from = read_json(results() / "receipts/evaluate/position.json")["made_from"]
    assert code_key(("train",)) not in made_from
    assert "x-" in made_from


def test_probes_of_controls_are_fitted_for_the_reference_alone(ablations, monkeypatch):
    asked = {}

    def note(config, part, threads, measured, *, further, controls):
        asked.setdefault(config.run, set()).add((part, measured, further, controls))
        return evaluate_part(config, part, threads, measured, further=further, controls=controls)

    evaluate_part = stage.evaluate_part
    monkeypatch.setattr(stage, "evaluate_part", note)
    for arm in ("plain", "vicreg"):
        run_arm(ablations, arm, 1)
    assert asked["arms/plain-1"] == {(part, (part,), (), True) for part in arms.PARTS}
    assert asked["arms/vicreg-1"] == {(part, (part,), (), False) for part in arms.PARTS}


DAY = 86_400  # s: far more than the tests' arms take, on however slow a machine


def interrupted_a_day_after_its_start(ablations, monkeypatch):
    """An arm whose checkpoint holds three steps, which took a day."""
    interrupted_at(5, monkeypatch, lambda: run_arm(ablations, "plain", 1))
    since = read_json(results() / "timing.json")["since"]
    os.utime(results() / ".partial/train/checkpoint.pt", (since + DAY, since + DAY))


def test_a_killed_arm_goes_on_from_its_checkpoint(ablations, monkeypatch, caplog):
    undisturbed = run_arm(ablations, "plain", 1)
    shutil.rmtree(results())
    interrupted_a_day_after_its_start(ablations, monkeypatch)
    with caplog.at_level("INFO", logger="jaisp"):
        assert run_arm(ablations, "plain", 1) == undisturbed
    assert "going on after step 3" in caplog.text
    assert read_json(results() / "timing.json")["seconds"] > DAY


def test_a_killed_arm_of_other_code_begins_anew(ablations, monkeypatch, caplog):
    interrupted_a_day_after_its_start(ablations, monkeypatch)
    monkeypatch.setattr(one, "code_key", lambda stages: "edited")
    with caplog.at_level("INFO", logger="jaisp"):
        run_arm(ablations, "plain", 1)
    assert "going on" not in caplog.text
    assert read_json(results() / "timing.json")["seconds"] < DAY


def test_why_an_arm_failed_is_kept_until_it_is_done(ablations, monkeypatch):
    def diverge(*arguments, **more):
        raise UserError("train: step 3: the loss is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(jaisp.train, "train", diverge)
        with pytest.raises(UserError, match="not finite"):
            run_arm(ablations, "plain", 1)
    assert "not finite" in read_failure(ablations, "plain", 1)
    run_arm(ablations, "plain", 1)
    assert read_failure(ablations, "plain", 1) is None


def test_a_base_that_is_not_made_is_named(ablations):
    Path("results/small/receipts/inject/all.json").unlink()
    with pytest.raises(UserError, match="results/small: not made yet"):
        run_arm(ablations, "plain", 1)


def test_an_arm_sees_the_truth_of_its_base(ablations):
    truth = Path("results/small/simulated/truth.ecsv")
    truth.parent.mkdir(exist_ok=True)
    truth.write_text("of the base")
    results().mkdir(parents=True)
    one.link_base(ablations.config("plain", 1), ablations.bases["small"])
    assert (results() / "simulated" / "truth.ecsv").read_text() == "of the base"


def test_nothing_of_the_users_is_replaced_by_a_link(ablations):
    (results() / "patches.zarr").mkdir(parents=True)
    with pytest.raises(UserError, match="move it away"):
        run_arm(ablations, "plain", 1)
