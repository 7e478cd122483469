"""What is lost without a band, for encoders that need one or none, and for made-up figures."""

import numpy as np
import pytest

from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.withheld import Figure, Measured, withheld
from tests.evaluate.skies import Noise, OneBand

BANDS = {"a": ["u", "g"], "b": ["r"]}
NAMES = np.array([f"field/{i % 12}/{i}" for i in range(240)])
NOISE = np.random.default_rng(0).normal(size=(240, 1))


def scatter_of(widths):
    """A figure whose errors are as wide as `widths` says of what is given."""

    def measure(given):
        width = widths[",".join(f"{s}:{b}" for s, bands in sorted(given.items()) for b in bands)]
        if width is None:
            return None
        return Measured(NAMES, width * NOISE, {"random": 3 * NOISE})

    return measure


def test_loss_of_a_known_figure(settings):
    widths = {"a:u,a:g,b:r": 1.0, "a:g,b:r": 1.5, "a:u,b:r": 1.0, "b:r": 2.0, "a:u,a:g": None}
    figure = Figure("error", ("a", "b"), scatter_of(widths), "scatter", whole=True, enough=1000)
    outcomes = Outcomes()
    rows = withheld([figure], BANDS, settings, outcomes)
    assert [(row["survey"], row["withheld"]) for row in rows] == [
        ("a", "u"),
        ("a", "g"),
        ("a", "a"),
    ]
    complete = rows[0]["complete"]
    for row, share in zip(rows, (0.5, 0.0, 1.0), strict=True):
        assert row["n"] == 240
        assert row["loss"] == pytest.approx(share * complete)
        assert row["loss_low"] <= row["loss"] <= row["loss_high"]
        assert row["value"] == pytest.approx(complete + row["loss"])
        assert row["random_loss"] == 0
        assert row["underpowered"]
        assert row["interval_unit"] == "patch"
    assert rows[0]["loss_low"] > 0
    assert rows[1]["loss_low"] == rows[1]["loss_high"] == 0
    assert len(outcomes) == 3


def test_sources_of_both_alone_are_compared(settings):
    def measure(given):
        kept = slice(None) if len(given["a"]) == 2 else slice(0, 100)
        return Measured(NAMES[kept][::-1], np.arange(240.0)[kept, None][::-1])

    rows = withheld([Figure("mean", ("a",), measure)], BANDS, settings)
    assert [(row["n"], row["loss"], row["complete"]) for row in rows] == 2 * [(100, 0.0, 49.5)]


def test_a_band_that_an_encoder_needs_is_missed_and_another_is_not(ask):
    rows = {row["withheld"]: row for row in ask(OneBand("i"), "withheld")[0]["withheld"]}
    assert set(rows) == {"g", "i"}
    assert rows["i"]["figure"] == "retrieval top1 wide>sharp"
    assert rows["i"]["complete"] > 0.8
    assert rows["i"]["value"] == 0
    assert rows["i"]["loss_low"] > 0.7
    assert rows["g"]["loss"] == rows["g"]["loss_low"] == rows["g"]["loss_high"] == 0
    for row in rows.values():
        assert row["n"] > 80
        assert abs(row["random_loss"]) < 0.03
        assert abs(row["shuffled_loss"]) < 0.03
        assert row["pixels_complete"] > 0.5


def test_noise_has_nothing_to_lose(ask):
    for row in ask(Noise(8), "withheld")[0]["withheld"]:
        assert row["complete"] < 0.03
        assert abs(row["loss"]) < 0.03
        assert row["loss_low"] <= 0 <= row["loss_high"]
