"""Retrieval of encoders whose quality is known."""

import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaisp.evaluate.search import SCOPES, deviations, directions, search
from jaisp.evaluate.stage import measure
from jaisp.evaluate.views import crop_corners
from tests.evaluate.conftest import pick
from tests.evaluate.skies import Constant, Noise, Oracle, Position, SmoothPosition

ROW = {
    "query", "target", "tokens", "scope", "candidates", "snr_min", "n", "top1", "top1_low",
    "top1_high", "top5", "top5_low", "top5_high", "within_one", "within_one_low",
    "within_one_high", "separation", "separation_low", "separation_high", "shuffled_top1",
    "blank_top1", "random_top1", "pixels_top1", "interval_unit", "underpowered",
}  # fmt: skip
CONTROLS = ("shuffled", "blank", "random")
BLIND = {
    "constant": Constant(),
    "position": Position(),
    "smooth position": SmoothPosition(),
    "noise": Noise(8),
}


def chance(row, among=1.0):
    """The most right answers in n that chance gives but once in a thousand times, as a share,
    when `among` of the candidates are right."""
    p, n = min(1.0, among * row["chance_top1"]), row["n"]
    return p + 3.1 * np.sqrt(p * (1 - p) / n) + 1 / n


def chance_mknn10(row):
    """The same of the shared neighbours: ten are drawn for each source."""
    p, n = row["chance_mknn10"], 10 * row["n"]
    return p + 4 * np.sqrt(p * (1 - p) / n)


@pytest.fixture(scope="module", params=BLIND)
def blind(request, ask):
    """What is measured of an encoder that does not look at the sky."""
    return ask(BLIND[request.param], "retrieval", "bands", "collapse")[0]


def test_oracle_finds_its_sky_and_every_control_is_at_chance(oracle):
    groups = oracle.groups
    surveys = [row for row in groups["retrieval"] if ":" not in row["query"]]
    bands = [row for row in groups["retrieval"] if ":" in row["query"]]
    assert len(surveys) == 2 * len(SCOPES)
    pairs = permutations(("sharp:r", "wide:g", "wide:i"), 2)
    assert {(r["query"], r["target"], r["tokens"], r["scope"]) for r in bands} == {
        (*pair, *scope) for pair, scope in product(pairs, SCOPES)
    }
    for row in groups["retrieval"]:
        assert set(row) >= ROW
        assert row["n"] > 80
        assert row["top1"] > (0.8 if row in surveys else 0.7)
        assert row["top1"] <= row["top5"] <= 1
        assert row["within_one"] >= row["top1"]
        for figure in ("top1", "top5", "within_one", "separation"):
            assert row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"]
        assert row["separation"] > 0.3
        assert not row["underpowered"]
        if row["scope"] == "field":
            assert max(row[f"{name}_top1"] for name in CONTROLS) <= chance(row)
    for query in ("sharp", "wide"):
        row = pick(groups, "source", "field", query)
        assert row["n"] == row["candidates"]
        assert row["mknn10"] > 0.4
        assert row["mknn10_low"] <= row["mknn10"] <= row["mknn10_high"]
        assert max(row[f"{name}_mknn10"] for name in CONTROLS) <= chance_mknn10(row)
        assert pick(groups, "sky", "field", query)["candidates"] == 18 * 24 * 24
    window = pick(groups, "sky", "patch")
    assert 9 * 9 <= window["candidates"] <= 17 * 17


def test_raw_pixels_are_a_strong_control_on_a_sky_of_one_colour(oracle):
    groups = oracle.groups
    assert pick(groups)["pixels_top1"] > 0.5
    assert pick(groups)["pixels_mknn10"] > 0.2


def test_encoders_that_do_not_look_are_at_chance(blind):
    for row in blind["retrieval"] + blind["bands"]:
        assert row["top1"] <= chance(row)
        assert row["within_one"] <= chance(row, 9 if row["tokens"] == "sky" else 3)
        assert abs(row["separation"]) < 0.05
        if row["scope"] == "field":
            assert row["top5"] <= chance(row, 5)
        if "mknn10" in row:
            assert row["mknn10"] <= chance_mknn10(row)


def test_encoders_that_do_not_look_share_nothing(blind):
    (row,) = (row for row in blind["collapse"] if row["survey"] == "sharp+wide")
    assert row["shared_participation_ratio"] == 0
    assert row["canonical_above_half"] == 0


def test_one_token_aside_is_caught(ask):
    groups, _ = ask(Oracle(shifted="wide"), "retrieval", "bands")
    for row in groups["retrieval"] + groups["bands"]:
        if row["tokens"] == "sky" and "wide:g" not in (row["query"], row["target"]):
            assert row["top1"] <= chance(row)
            assert row["within_one"] > 0.7


def test_same_seed_same_figures(sky, settings, oracle):
    again = measure(sky, settings, (Oracle(), Noise())).groups
    assert json.dumps(again) == json.dumps(oracle.groups)


@given(st.integers(4, 9), st.integers(0, 5))
@hypothesis_settings(max_examples=20, deadline=None)
def test_crops_of_a_patch_are_always_displaced_both_ways(crop_tokens, seed):
    corners = crop_corners(np.arange(40), crop_tokens, 2, seed)
    assert all((-2 - crop_tokens <= corner).all() for corner in corners.values())
    assert all((corner <= -2).all() for corner in corners.values())
    apart = corners["first"] - corners["second"]
    assert (np.abs(apart) == crop_tokens).all()
    assert len(np.unique(np.sign(apart), axis=0)) == 4


@given(st.integers(1, 30), st.integers(0, 1000))
@hypothesis_settings(max_examples=20, deadline=None)
def test_search_agrees_with_a_plain_sort(count, seed):
    rng = np.random.default_rng(seed)
    target = directions(rng.normal(size=(2, 6, 7, 5)).astype(np.float32))
    valid = rng.random((2, 6, 7)) > 0.2
    right = rng.choice(np.flatnonzero(valid), size=count, replace=False)
    others = rng.choice(np.flatnonzero(valid), size=5)
    query = directions(rng.normal(size=(count, 5)).astype(np.float32))
    found = search(query, target, valid, right, np.append(right, others), window_tokens=1)

    similarity = query @ target.reshape(-1, 5).T
    place = np.stack(np.unravel_index(np.arange(84), valid.shape), axis=1)
    for i in range(count):
        near = (place[:, 0] == place[right[i], 0]) & (
            np.abs(place[:, 1:] - place[right[i], 1:]).max(axis=1) <= 1
        )
        source = np.isin(np.arange(84), np.append(right, others))
        for (tokens, scope), ranks in found.items():
            among = valid.ravel() & (source | (tokens == "sky")) & (near | (scope == "field"))
            order = [j for j in np.argsort(-similarity[i]) if among[j]]
            assert ranks.candidates[i] == len(order)
            assert ranks.rank[i] == order.index(right[i])
            assert ranks.within[i] == near[order[0]]


def test_ties_count_against():
    target = np.ones((1, 3, 3, 2), np.float32) / np.sqrt(2).astype(np.float32)
    valid, right = np.ones((1, 3, 3), bool), np.arange(3)
    found = search(target[0, 0], target, valid, right, right, window_tokens=1)
    assert (found["sky", "field"].rank == 8).all()


def test_tokens_that_are_only_rounding_have_no_direction():
    mean = np.full(8, 1 / 3)
    tokens = np.full((4, 8), 1 / 3, np.float32)
    assert not directions(deviations(tokens, mean)).any()
