"""The mean token by place in the crop: all of it where tokens are nothing else, none by chance."""

import numpy as np
import pytest

from jaisp.evaluate.means import _mean_token, mean_tokens
from tests.evaluate.skies import Noise, SmoothPosition

VALID = np.ones((6, 20, 20), bool)


def test_tokens_that_only_know_their_place_are_told_exactly():
    code = np.random.default_rng(0).normal(size=(20, 20, 8)).astype(np.float32)
    mean = _mean_token(np.broadcast_to(code, (6, *code.shape)), VALID, edge=0)
    np.testing.assert_allclose(mean.by_place, code, atol=1e-6)


def test_places_that_differ_by_chance_have_one_mean():
    tokens = 3 + np.random.default_rng(0).normal(size=(6, 20, 20, 8)).astype(np.float32)
    mean = _mean_token(tokens, VALID, edge=0)
    spread = mean.by_place.std(axis=(0, 1)).mean()
    assert spread < 0.1 * tokens.std() / np.sqrt(6)
    assert mean.by_place.mean() == pytest.approx(3, abs=0.05)


def test_one_patch_tells_nothing_of_its_places():
    tokens = np.random.default_rng(0).normal(size=(1, 20, 20, 8)).astype(np.float32)
    mean = _mean_token(tokens, VALID[:1], edge=0)
    np.testing.assert_allclose(mean.by_place, np.broadcast_to(mean.by_place[0, 0], (20, 20, 8)))


def test_places_without_a_token_have_the_mean_of_all():
    code = np.arange(400, dtype=np.float32).reshape(1, 20, 20, 1).repeat(6, axis=0)
    valid = VALID.copy()
    valid[:, :5] = False
    mean = _mean_token(code, valid, edge=0)
    assert mean.by_place[0, 0, 0] == pytest.approx(code[0, 5:].mean())


def test_every_place_of_a_patch_is_met_in_every_crop(sky, settings):
    """Corners differ from patch to patch; the mean of a place is found by where it lies."""
    encoders = {"model": SmoothPosition(), "random": Noise()}
    means = mean_tokens(sky, sky.where("train")[:4], encoders, settings)
    corners = np.array([[-14, -10], [-10, -14]])
    at = means["wide"]["model"].of(corners, 24)
    code = (
        SmoothPosition()
        .encode(np.zeros((1, 2, 48 * 4, 48 * 4)), None, survey="wide", bands=["g", "i"])[0]
        .transpose(1, 2, 0)
    )
    for patch, (row, column) in enumerate(-corners):
        expected = code[row : row + 24, column : column + 24]
        np.testing.assert_allclose(at[patch], expected, atol=1e-5)
