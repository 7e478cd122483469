"""The collapse figures on tokens of known structure."""

import numpy as np
import pytest

from jaisp.evaluate.collapse import (
    canonical_correlations,
    eigenvalues,
    participation_ratio,
    position_leak,
    rankme,
    shared_spectrum,
)
from tests.evaluate.skies import Constant, SmoothPosition


def isotropic(n, dimensions, seed):
    return np.random.default_rng(seed).normal(size=(n, dimensions))


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_rank_of_isotropic_tokens_is_told(rank):
    tokens = isotropic(20_000, rank, 0) @ np.linalg.qr(isotropic(32, 32, 1))[0][:rank]
    spectrum = eigenvalues(tokens)
    assert participation_ratio(spectrum) == pytest.approx(rank, rel=0.02)
    assert rankme(spectrum) == pytest.approx(rank, rel=0.02)


def test_constant_tokens_have_no_rank():
    spectrum = eigenvalues(np.ones((10, 4)))
    assert participation_ratio(spectrum) == 0
    assert rankme(spectrum) == 0


@pytest.mark.parametrize("seed", range(5))
def test_independent_tokens_share_nothing(seed):
    first, second = isotropic(300, 32, seed), isotropic(300, 24, seed + 100)
    assert participation_ratio(shared_spectrum(first, second, 0)) == 0


@pytest.mark.parametrize("shared", [1, 5])
def test_shared_dimensions_are_counted(shared):
    common = isotropic(2000, shared, 0)
    first = np.hstack([common, isotropic(2000, 20 - shared, 1)])
    second = np.hstack([isotropic(2000, 20 - shared, 2), common])
    assert participation_ratio(shared_spectrum(first, second, 0)) == pytest.approx(shared, rel=0.1)
    fit = np.arange(2000) % 2 == 0
    assert (canonical_correlations(first, second, fit) > 0.5).sum() == shared


def test_position_in_the_crop_is_found_where_it_leaks():
    rng = np.random.default_rng(0)
    position = rng.integers(0, 20, (4000, 2)).astype(float)
    patch = np.repeat(np.arange(8), 500)
    blind = rng.normal(size=(4000, 10))
    assert position_leak(blind, position, patch) < 0.01
    blind[:, :2] += position
    assert position_leak(blind, position, patch) > 0.9


def test_rows_of_an_oracle(oracle):
    rows = {row["survey"]: row for row in oracle.groups["collapse"]}
    assert set(rows) == {"sharp", "wide", "sharp+wide"}
    for survey in ("sharp", "wide"):
        row = rows[survey]
        assert row["dimensions"] == 48
        # A draw repeats patches and has a lower rank than all of them, for which limits make up.
        for figure in ("participation_ratio", "rankme", "top5_share", "smallest_std"):
            assert 0 < row[f"{figure}_low"] < row[figure] < row[f"{figure}_high"]
        assert row["participation_ratio"] < row["rankme"] < 48
        assert row["position_leak"] < 0.02
        for control in ("random", "blank"):
            for figure in ("participation_ratio", "rankme", "top5_share", "position_leak"):
                assert f"{control}_{figure}" in row
        assert not row["underpowered"]
    both = rows["sharp+wide"]
    assert both["shared_participation_ratio"] > 2
    assert both["canonical_above_half"] > 2
    for control in ("random", "blank", "shuffled"):
        assert both[f"{control}_shared_participation_ratio"] == 0
        assert both[f"{control}_canonical_above_half"] == 0


def test_tokens_that_tell_their_place_are_caught(ask):
    groups, _ = ask(SmoothPosition(), "collapse")
    leaks = [row["position_leak"] for row in groups["collapse"] if "position_leak" in row]
    assert min(leaks) > 0.95
    (both,) = (row for row in groups["collapse"] if "+" in row["survey"])
    assert both["shared_participation_ratio"] == 0


def test_constant_tokens_have_collapsed(ask):
    rows = ask(Constant(), "collapse")[0]["collapse"]
    for row in (row for row in rows if "+" not in row["survey"]):
        assert row["participation_ratio"] == row["rankme"] == row["smallest_std"] == 0
