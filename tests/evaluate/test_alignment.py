"""Offsets that were put in come out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaisp.evaluate.alignment import band_pairs
from jaisp.evaluate.phase import peak
from tests.evaluate.conftest import SHIFT


def across(groups):
    return [r for r in groups["alignment"] if r["query"].startswith("sharp:")]


def test_a_known_shift_is_recovered_both_ways(oracle):
    rows = across(oracle.groups)
    assert [row["target"] for row in rows] == ["wide:g", "wide:i"]
    east_north = (-SHIFT[0], SHIFT[1])
    for row in rows:
        assert row["n"] > 200
        for axis, put_in in zip(("dx", "dy"), east_north, strict=True):
            assert row[f"{axis}_arcsec"] == pytest.approx(put_in, abs=0.005)
            assert row[f"{axis}_arcsec_low"] < put_in + 0.003
            assert row[f"{axis}_arcsec_high"] > put_in - 0.003
            assert row[f"phase_{axis}_arcsec"] == pytest.approx(put_in, abs=0.02)
        assert row["correlation"] > 0.5
        assert abs(row["turned_correlation"]) < 0.1


def test_bands_of_one_survey_agree(oracle):
    (row,) = [r for r in oracle.groups["alignment"] if r["query"].startswith("wide:")]
    assert abs(row["dx_arcsec"]) < 0.005
    assert abs(row["phase_dy_arcsec"]) < 0.01


def test_every_band_of_a_later_survey_is_compared_with_the_reference():
    bands = {"a": ["r", "g"], "b": ["H"], "c": ["K"]}
    pairs = band_pairs(bands, {"a": "r", "b": "H", "c": "K"})
    assert pairs == [
        (("a", "r"), ("b", "H")),
        (("a", "r"), ("c", "K")),
        (("b", "H"), ("c", "K")),
        (("a", "r"), ("a", "g")),
    ]


@given(st.floats(-20, 20), st.floats(-20, 20))
@hypothesis_settings(max_examples=30, deadline=None)
def test_peak_of_a_pure_shift(row, column):
    k = np.fft.fftfreq(64)
    smooth = np.exp(-50 * np.add.outer(k**2, k**2))
    spectrum = smooth * np.exp(-2j * np.pi * np.add.outer(k * row, k * column))
    found = peak(spectrum)
    assert found == pytest.approx((row, column), abs=0.003)
