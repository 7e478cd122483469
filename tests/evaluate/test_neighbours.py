"""Mutual nearest neighbours of spaces that are known to be alike, or not."""

import numpy as np
import pytest

from jaisp.evaluate.neighbours import chance_of_sharing, shared_neighbours


def directions(n, dimensions, seed):
    tokens = np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32)
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


def test_identical_spaces_share_all_neighbours_however_they_are_turned():
    tokens = directions(300, 12, 0)
    assert (shared_neighbours(tokens, tokens) == 1).all()
    turned = tokens @ np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    assert shared_neighbours(tokens, turned.astype(np.float32)).mean() > 0.999


@pytest.mark.parametrize("n", [60, 500])
def test_independent_spaces_share_what_chance_has_it(n):
    found = shared_neighbours(directions(n, 12, 0), directions(n, 20, 1))
    expected = 10 / (n - 1)
    assert chance_of_sharing(np.arange(n)) == pytest.approx(expected)
    assert found.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / n / 10))


def test_tokens_without_a_direction_are_at_chance():
    nothing = np.zeros((500, 8), np.float32)
    assert shared_neighbours(nothing, nothing).mean() == pytest.approx(10 / 499, abs=0.006)
    assert shared_neighbours(nothing, directions(500, 8, 7)).mean() < 0.03


def test_neighbours_are_sought_on_other_patches():
    """Sources of one patch that are all alike, and share nothing with other patches."""
    patch = np.repeat(np.arange(20), 15)
    first = directions(20, 64, 0)[patch] + 0.1 * directions(300, 64, 1)
    second = directions(20, 64, 2)[patch] + 0.1 * directions(300, 64, 3)
    assert shared_neighbours(first, second).mean() > 0.5
    assert shared_neighbours(first, second, patch).mean() < 0.15
    assert chance_of_sharing(patch) == pytest.approx(10 / 285)


def test_too_few_sources_for_a_choice():
    tokens = directions(19, 4, 0)
    assert np.isnan(shared_neighbours(tokens, tokens)).all()
    assert np.isnan(chance_of_sharing(np.arange(19)))
