"""Zero points as configs name them."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaisp.config import parse_config
from jaisp.errors import UserError
from jaisp.zeropoint import Term, terms, zeropoint
from tests.configs import small_config

HEADER = {"EXPTIME": 100.0, "MAG-ZERO": 24.5, "ESO QC ZP": "27.25", "GAIN": 10, "PIXAR_SR": 2.1e-14}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MAG-ZERO", 24.5),
        ("ESO QC ZP", 27.25),
        ("31.4", 31.4),
        ("25 + 2.5 log10(EXPTIME)", 30.0),
        ("25 + 2.5*log10(EXPTIME)", 30.0),
        ("MAG-ZERO + 2.5 log10(EXPTIME) - 2.5 log10(GAIN)", 27.0),
        ("-6.10 - 2.5 log10(PIXAR_SR)", -6.1 - 2.5 * math.log10(2.1e-14)),
        ("- log10(GAIN)", -1.0),
    ],
)
def test_what_a_header_tells(text, expected):
    assert zeropoint(text, HEADER) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "text", ["", "25 +", "+ + 25", "25 + 2.5 ln(EXPTIME)", "2.5 EXPTIME (s)", "log10()", "25 * K",
             "__import__('os')", "25 + 2.5 log10(EXPTIME", "1e400 +  ", "a" * 500 + "("]
)  # fmt: skip
def test_what_is_none_is_told_of_the_config_in_one_line(text):
    content = small_config()
    content["surveys"]["wide"]["archive"]["images"][0]["zeropoint"] = text
    with pytest.raises(UserError, match="zeropoint") as told:
        parse_config(content, Path("x.yaml"))
    assert str(told.value).count("\n") == 0
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("value", [math.nan, math.inf, "nan", None])
def test_what_makes_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"K is|nan|inf"):
        zeropoint("25 + K", {"K": value})


key = st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True)
factor = st.integers(1, 10**6).map(lambda n: n / 1000)
numbers, keys = st.builds(Term, factor), st.builds(Term, st.just(1.0), key)
term = st.one_of(numbers, keys, st.builds(Term, factor, key, st.just(True)))


def _written(term):
    if term.key is None:
        return f"{term.factor}"
    return f"{term.factor} log10({term.key})" if term.is_logarithm else term.key


@given(st.lists(term, min_size=1, max_size=5))
def test_what_is_written_is_what_is_read(written):
    assert terms(" + ".join(_written(term) for term in written)) == written


@given(st.text(max_size=40))
def test_any_text_is_terms_or_refused(text):
    try:
        assert terms(text)
    except ValueError as error:
        if "no zero point" not in str(error):
            raise
