"""Patches that were moved by known amounts, through sources that say so with known errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaisp.evaluate.motion import Motion, Moves, learn_stretch, learn_trust, solve, unstretched


def drawn(rng, patches, shift=200.0, turn=2.0) -> Motion:
    return Motion(rng.normal(0, shift, (patches, 2)), rng.normal(0, turn, patches))


def observed(rng, motion, sources, slope=1.0, sigma=lambda snr: 300 / snr, wrong=0.0):
    patch = np.repeat(np.arange(len(motion.turn)), sources)
    place = rng.uniform(-24, 24, (len(patch), 2))
    snr = 10 ** rng.uniform(0.7, 2, len(patch))
    truth = motion.at(patch, place)
    moved = slope * truth + rng.normal(size=truth.shape) * sigma(snr)[:, None]
    astray = rng.random(len(patch)) < wrong
    moved[astray] = rng.uniform(-1000, 1000, (astray.sum(), 2))
    return Moves(patch, place, moved, snr), truth


@given(st.floats(-500, 500), st.floats(-500, 500), st.floats(-20, 20), st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=25, deadline=None)
def test_what_was_put_in_comes_out(dx, dy, turn, seed):
    rng = np.random.default_rng(seed)
    motion = Motion(np.array([[dx, dy]]), np.array([turn]))
    moves, truth = observed(rng, motion, 40, sigma=lambda snr: 0 * snr)
    trust = learn_trust(moves, truth + rng.normal(size=truth.shape), slope=1.0)
    found = solve(moves, trust.with_offset(np.zeros(2)), 1, drawn(rng, 50))
    # The solution is linear in the angle: its square, in radians, is neglected.
    assert found.shift[0] == pytest.approx([dx, dy], abs=1 + 24 * turn**2 / 1000)
    assert found.turn[0] == pytest.approx(turn, abs=0.1 + 0.01 * abs(turn))


def test_a_turn_carries_the_west_to_the_north():
    motion = Motion(np.zeros((1, 2)), np.array([1.0]))
    at = motion.at(np.zeros(1, int), np.array([[10.0, 0.0]]))
    assert at[0] == pytest.approx([0, 10], abs=0.01)


def test_shrunken_answers_are_stretched_and_weighted_as_they_deserve():
    rng = np.random.default_rng(2)
    train, test = drawn(rng, 60), drawn(rng, 400)
    known, truth = observed(rng, train, 50, slope=0.4)
    moves, _ = observed(rng, test, 50, slope=0.4)
    trust = learn_trust(known, truth)
    assert trust.slope == pytest.approx(np.full(8, 0.4), rel=0.1)
    found = solve(moves, trust, 400, train)
    # The best that these errors allow: one over the root of the information.
    information = np.bincount(moves.patch, (0.4 * moves.snr / 300) ** 2)
    best = np.sqrt(np.mean(1 / information))
    assert np.std(found.shift - test.shift) == pytest.approx(best, rel=0.15)


def test_sources_gone_astray_do_little_harm():
    rng = np.random.default_rng(3)
    train, test = drawn(rng, 60), drawn(rng, 200)
    known, truth = observed(rng, train, 50, wrong=0.1)
    trust = learn_trust(known, truth, slope=1.0)
    errors = []
    for wrong in (0.0, 0.1):
        moves, _ = observed(np.random.default_rng(4), test, 50, wrong=wrong)
        errors.append(np.std(solve(moves, trust, 200, train).shift - test.shift))
    assert errors[1] < 1.5 * errors[0]


def test_nothing_to_go_by_means_no_motion():
    rng = np.random.default_rng(5)
    train = drawn(rng, 60)
    known, truth = observed(rng, train, 50, slope=0.0)
    found = solve(known, learn_trust(known, truth), 60, train)
    assert np.abs(found.shift).max() < 0.05 * np.abs(train.shift).mean()


def test_a_map_of_the_shifts_is_taken_out():
    rng = np.random.default_rng(6)
    truth = drawn(rng, 40)
    askew = Motion(truth.shift @ np.array([[0.9, 0.05], [-0.03, 1.1]]), truth.turn)
    known = np.arange(40) < 20
    stretch = learn_stretch(askew.part(known), truth.part(known))
    assert unstretched(askew, stretch).shift == pytest.approx(truth.shift, abs=1e-6)
    nothing = Motion(0 * truth.shift, 0 * truth.turn)
    assert learn_stretch(nothing.part(known), truth.part(known)) == pytest.approx(np.eye(2))
