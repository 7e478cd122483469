"""Runs side by side: planted differences are found, and none where there is none."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaisp.errors import UserError
from jaisp.evaluate.compare import compare
from jaisp.evaluate.outcomes import NAME, Outcomes
from jaisp.evaluate.scatter import r2, scatter
from tests.evaluate.skies import Noise, Oracle

NAMES = np.array([f"field/{i % 20}/{i}" for i in range(400)])
ROW = {"query": "a", "target": "b", "figure": "top1"}


def save(folder, values, names=NAMES, statistic="mean", sky="here", row=ROW):
    outcomes = Outcomes(model=folder.name, sky=sky)
    outcomes.add("retrieval", row, names, values, statistic)
    outcomes.save(folder / NAME)
    return folder


def difficulty(seed=0):
    """Each source is as hard for every model."""
    return np.random.default_rng(seed).normal(size=400)


@given(
    st.dictionaries(st.text("abc/é:", min_size=1), st.floats(-1e6, 1e6, width=32), max_size=20),
    st.sampled_from(["mean", "scatter"]),
)
@hypothesis_settings(max_examples=20, deadline=None)
def test_outcomes_come_back_as_they_were(tmp_path_factory, found, statistic):
    path = tmp_path_factory.mktemp("outcomes") / NAME
    kept = Outcomes("weights", "sky")
    values = np.array(list(found.values()), np.float32)
    kept.add("group", {"figure": "é", "snr": 5.0}, list(found), values, statistic)
    kept.add("group", {"figure": "x"}, list(found), np.stack([values, values], 1), "r2")
    kept.save(path)
    back = Outcomes.load(path)
    assert (back.model, back.sky, len(back)) == ("weights", "sky", 2)
    for mine, theirs in zip(kept, back, strict=True):
        assert (mine.key, mine.statistic) == (theirs.key, theirs.statistic)
        assert list(mine.sources) == list(theirs.sources)
        np.testing.assert_array_equal(mine.values, theirs.values)


def test_same_outcomes_make_the_same_file(tmp_path):
    first, second = (save(tmp_path / name, difficulty()) for name in "ab")
    again = Outcomes.load(first / NAME)
    again.model = "b"
    again.save(first / NAME)
    assert (first / NAME).read_bytes() == (second / NAME).read_bytes()


MISTAKES = {
    "named twice": {"source_ids": ["a", "a"]},
    "values of 2 sources": {"values": np.zeros(3)},
    "1\\) values": {"statistic": "r2"},
    "needs a figure": {"identity": {}},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_outcomes_that_do_not_fit_are_refused(message):
    right = {"group": "g", "identity": {"figure": "f"}, "source_ids": ["a", "b"]}
    right |= {"values": np.zeros(2), "statistic": "mean"}
    with pytest.raises(ValueError, match=message):
        Outcomes().add(**(right | MISTAKES[message]))


def test_a_small_difference_is_known_better_than_either_figure(tmp_path):
    hard = difficulty()
    small = 0.05 + 0.02 * np.random.default_rng(1).normal(size=400)
    runs = [save(tmp_path / "a", hard), save(tmp_path / "b", hard + small)]
    (row,) = compare(runs)["rows"]
    assert row["n"] == row["base_n"] == row["run_n"] == 400
    assert row["difference"] == pytest.approx(small.mean(), abs=1e-4)
    assert 0.045 < row["difference_low"] < small.mean() < row["difference_high"] < 0.055
    assert row["interval_unit"] == "patch"
    written = json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert written["rows"] == [row]
    assert [run["model"] for run in written["runs"]] == ["a", "b"]


def test_a_run_differs_from_itself_by_nothing(tmp_path):
    run = save(tmp_path / "a", difficulty())
    (row,) = compare([run, run], tmp_path / "elsewhere.json")["rows"]
    assert row["difference"] == row["difference_low"] == row["difference_high"] == 0
    assert (tmp_path / "elsewhere.json").exists()
    assert not (run / "comparison.json").exists()


def test_intervals_hold_no_difference_as_often_as_they_say(tmp_path):
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        runs = [save(tmp_path / f"{trial}{name}", rng.normal(size=400)) for name in "ab"]
        (row,) = compare(runs)["rows"]
        held += row["difference_low"] <= 0 <= row["difference_high"]
    assert held >= 51


@pytest.mark.parametrize("statistic", ["scatter", "r2"])
def test_other_figures_are_compared_in_pairs(tmp_path, statistic):
    truth, error = difficulty(), 0.3 * np.random.default_rng(1).normal(size=400)
    values = {
        "scatter": [error, 2 * error],
        "r2": [np.stack([truth, truth + wide * error], axis=1) for wide in (1, 2)],
    }[statistic]
    runs = [save(tmp_path / n, v, statistic=statistic) for n, v in zip("ab", values, strict=True)]
    (row,) = compare(runs)["rows"]
    figure = {"scatter": scatter, "r2": lambda v: r2(v[:, 0], v[:, 1])}[statistic]
    assert row["base_value"] == pytest.approx(figure(values[0]), rel=1e-4)
    assert row["run_value"] == pytest.approx(figure(values[1]), rel=1e-4)
    limits = sorted([row["difference_low"], row["difference_high"]])
    assert limits[0] < row["difference"] < limits[1]
    assert limits[0] > 0 or limits[1] < 0


def test_only_common_sources_are_compared_and_the_log_says_so(tmp_path, caplog):
    values = difficulty()
    runs = [
        save(tmp_path / "a", values[:300], NAMES[:300]),
        save(tmp_path / "b", values[100:][::-1], NAMES[100:][::-1]),
    ]
    (row,) = compare(runs)["rows"]
    assert (row["n"], row["base_n"], row["run_n"]) == (200, 300, 300)
    assert row["difference"] == row["difference_low"] == 0
    assert "of 300 in a and 300 in b, 200 are compared" in caplog.text


def test_what_can_not_be_compared_is_the_users_to_mend(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = save(tmp_path / "results" / "a", difficulty())
    save(tmp_path / "results" / "sky", difficulty(), sky="there")
    save(tmp_path / "results" / "others", difficulty(), np.char.add(NAMES, "x"))
    save(tmp_path / "results" / "row", difficulty(), row={"figure": "other"})
    for other, message in {
        "sky": "other sky",
        "others": "no source in common",
        "row": "no figure in common",
        "missing": "run `jaisp evaluate` first",
    }.items():
        with pytest.raises(UserError, match=message):
            compare(["a", other])
    with pytest.raises(UserError, match="two runs or more"):
        compare([a])
    (a / NAME).write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="not the outcomes of an evaluation"):
        compare(["a", "sky"])


def test_pickles_are_not_read(tmp_path):
    index = {"model": None, "sky": None, "entries": [["g", {"figure": "f"}, "mean", 0]]}
    arrays = {"sources_0": np.array(["a"], object), "values_0": np.zeros((1, 1))}
    np.savez(tmp_path / NAME, index=np.array(json.dumps(index)), **arrays)
    with pytest.raises(UserError, match="not the outcomes"):
        Outcomes.load(tmp_path / NAME)


def test_the_command_compares_runs_by_name_and_by_folder(tmp_path):
    hard = difficulty()
    for name, more in {"a": 0, "b": 1, "c": 2}.items():
        save(tmp_path / "results" / name, hard + more)
    command = [sys.executable, "-c", "from jaisp.cli import main; main()", "evaluate", "--compare"]
    named = ["a", "results/b", str(tmp_path / "results" / "c")]
    done = subprocess.run(
        [*command, *named, "--out", "found/all.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "difference +1 (+1 to +1)" in lines[0]
    assert lines[2] == "2 figures compared: found/all.json"
    rows = json.loads((tmp_path / "found" / "all.json").read_text())["rows"]
    assert [(row["base"], row["run"]) for row in rows] == [("a", "b"), ("a", "c")]


def test_an_oracle_is_told_from_noise_and_noise_not_from_noise(ask, tmp_path):
    for name, encoder in {"noise": Noise(8), "same": Noise(9), "oracle": Oracle()}.items():
        groups, outcomes = ask(encoder, "retrieval")
        outcomes.save(tmp_path / name / NAME)
        if name == "noise":
            expected = groups["retrieval"][0]["top1"]
    content = compare([tmp_path / name for name in ("noise", "same", "oracle")])
    rows = [row for row in content["rows"] if row["group"] == "retrieval"]
    assert rows[0]["base_value"] == pytest.approx(expected, abs=1e-6)
    against_noise = [row for row in rows if row["run"] == "same"]
    against_oracle = [row for row in rows if row["run"] == "oracle" and row["figure"] == "top1"]
    assert len(against_noise) == len([row for row in rows if row["run"] == "oracle"])
    assert all(row["difference_low"] > 0.4 for row in against_oracle)
    unlike = [
        row for row in against_noise if not row["difference_low"] <= 0 <= row["difference_high"]
    ]
    assert len(unlike) <= 0.15 * len(against_noise)
