"""The test of slices against integrals worked by hand, and the terms made of it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import erf

from jaisp.train.sigreg import draw_tokens, epps_pulley, sigreg

ROOT = math.sqrt(2 * math.pi)


def test_values_that_are_all_zero_have_a_known_statistic():
    # φ = 1, so the integrand is exp(−t²/2) − 2 exp(−t²) + exp(−3t²/2), each an error function.
    whole = ROOT * (erf(3 / math.sqrt(2)) - math.sqrt(2) * erf(3) + erf(3 * 1.5**0.5) / 3**0.5)
    found = epps_pulley(torch.zeros(5, 2), torch.full((5,), 0.2), 5.0)
    np.testing.assert_allclose(found, [5 * whole] * 2, rtol=2e-3)


def test_two_points_have_the_cosine_of_their_distance():
    # Of −a and a with halves of the weight φ(t) = cos(at).
    def integrand(t):
        return (np.cos(1.3 * t) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    found = epps_pulley(torch.tensor([[-1.3], [1.3]]), torch.tensor([0.5, 0.5]), 2.0)
    assert found.item() == pytest.approx(2 * quad(integrand, -3, 3)[0], rel=2e-3)


def test_a_displaced_point_turns_in_the_complex_plane():
    # φ(t) = exp(iat): |φ − g|² = 1 − 2 g cos(at) + g².
    def integrand(t):
        g = np.exp(-(t**2) / 2)
        return (1 - 2 * g * np.cos(0.7 * t) + g**2) * g

    found = epps_pulley(torch.tensor([[0.7]]), torch.ones(1), 1.0)
    assert found.item() == pytest.approx(quad(integrand, -3, 3)[0], rel=2e-3)


def test_weights_count_like_repetitions():
    values = torch.tensor([[0.3], [-1.0], [2.0]])
    weighted = epps_pulley(values, torch.tensor([0.5, 0.25, 0.25]), 4.0)
    repeated = epps_pulley(values[[0, 0, 1, 2]], torch.full((4,), 0.25), 4.0)
    torch.testing.assert_close(weighted, repeated)


def test_normal_values_have_the_mean_that_theory_gives():
    # E n|φ_n − φ|² = 1 − |φ|², whatever n.
    expected = quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)[0]
    values = torch.randn(200, 3000, generator=torch.Generator().manual_seed(0))
    found = epps_pulley(values, torch.full((200,), 1 / 200), 200.0)
    assert found.mean().item() == pytest.approx(expected, rel=0.05)
    assert epps_pulley(2 * values, torch.full((200,), 1 / 200), 200.0).mean() > 5 * expected


def terms(first, second, weight, **changed):
    return sigreg(first, second, weight, **{"slices": 16, "tokens": 100, "seed": 3, **changed})


def test_alignment_is_the_mean_square_from_the_mean_of_both_views():
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    # From their mean both are 1 and 1.5: their squares over 2 tokens and 2 dimensions.
    found = terms(first, second, torch.ones(2)).alignment.item()
    assert found == pytest.approx((1 + 2.25) / 4)


def test_in_one_dimension_every_slice_is_the_tokens_themselves():
    # A slice of one dimension is ±1, and the statistic is even.
    first = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    share = torch.full((20,), 0.05)
    expected = (epps_pulley(first, share, 20.0) + epps_pulley(3 * first, share, 20.0)) / 2
    found = terms(first, 3 * first, torch.ones(20)).normality
    torch.testing.assert_close(found, expected[0])


def test_round_normal_tokens_cost_less_than_stretched_or_collapsed_ones():
    rng = torch.Generator().manual_seed(0)
    tokens, weight = torch.randn(400, 8, generator=rng), torch.rand(400, generator=rng)
    plain = terms(tokens, tokens, weight, tokens=1000).normality
    stretched = tokens * torch.linspace(0.2, 2, 8)
    collapsed = tokens[:, :1].expand(-1, 8)
    for worse in (stretched, collapsed, tokens + 1, torch.zeros_like(tokens)):
        assert terms(worse, worse, weight, tokens=1000).normality > 3 * plain


def test_tokens_are_drawn_by_their_weights():
    weight = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0, 6.0])
    place, share, count = draw_tokens(weight / 10, 5, torch.Generator().manual_seed(0))
    assert count == 5
    assert torch.equal(share, torch.full((5,), 0.2))
    assert set(place.tolist()) <= {1, 3, 5}
    assert place.tolist().count(5) == 3
    counts = np.zeros(6)
    for seed in range(500):
        drawn = draw_tokens(weight / 10, 5, torch.Generator().manual_seed(seed))[0]
        counts += np.bincount(drawn.numpy(), minlength=6)
    np.testing.assert_allclose(counts / 2500, weight / 10, atol=0.01)


def test_few_tokens_are_all_taken_and_count_by_their_weights():
    share = torch.tensor([0.5, 0.25, 0.25])
    place, kept, count = draw_tokens(share, 3, torch.Generator())
    assert place.tolist() == [0, 1, 2]
    assert torch.equal(kept, share)
    assert count == pytest.approx(1 / 0.375)


def test_the_seed_chooses_tokens_and_slices():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(300, 4, generator=rng)
    weight = torch.rand(300, generator=rng)
    one, again, other = (terms(tokens, tokens, weight, seed=s).normality for s in (1, 1, 2))
    assert one == again
    assert one != other
