"""The terms against formulas worked by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from jaisp.train.objective import (
    FLOOR,
    HOLD,
    covariance_matrix,
    information,
    random_blocks,
    vicreg,
)
from jaisp.train.sigreg import sigreg

ONES = torch.ones(4)
SIGREG = partial(sigreg, slices=8, tokens=1000, seed=1)


def test_alignment_is_the_mean_square_over_tokens_and_dimensions():
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 2.0]])
    # (4 + 9 + 0 + 4) / 4 tokens / 2 dimensions
    assert vicreg(first, second, ONES).alignment.item() == pytest.approx(17 / 8)


def test_alignment_counts_by_weight():
    first, second = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    found = vicreg(first, second, torch.tensor([3.0, 1.0]))
    assert found.alignment.item() == pytest.approx(0.75 * 1 + 0.25 * 9)


def test_variance_is_the_hinge_averaged_over_dimensions_and_views():
    # Unbiased variances: ±1 gives 4/3 (above one: no loss), ±.5 gives 1/3.
    first = torch.tensor([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5], [-1.0, -0.5]])
    second = torch.zeros(4, 2)
    of_first = (0 + (1 - np.sqrt(1 / 3 + 1e-4))) / 2
    of_second = 1 - np.sqrt(1e-4)
    expected = (of_first + of_second) / 2
    assert vicreg(first, second, ONES).variance.item() == pytest.approx(expected, rel=1e-5)


def test_covariance_is_the_sum_of_squares_off_the_diagonal_over_dimensions():
    column = torch.tensor([1.0, -1.0, 1.0, -1.0])
    first = torch.stack([column, 2 * column], dim=1)
    second = torch.zeros(4, 2)
    # C_12 = C_21 = 2 · 4/3; their squares over D = 2, halved over the two views.
    expected = 0.5 * 2 * (8 / 3) ** 2 / 2
    assert vicreg(first, second, ONES).covariance.item() == pytest.approx(expected)


def test_equal_weights_give_the_textbook_covariance():
    tokens = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3)))
    found = covariance_matrix(tokens, torch.full((50,), 1 / 50, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), np.cov(tokens.numpy().T), rtol=1e-10)


def test_weights_give_numpys_weighted_covariance():
    rng = np.random.default_rng(1)
    tokens, weight = rng.normal(size=(50, 3)), rng.random(50)
    found = covariance_matrix(torch.from_numpy(tokens), torch.from_numpy(weight / weight.sum()))
    np.testing.assert_allclose(found.numpy(), np.cov(tokens.T, aweights=weight), rtol=1e-10)


def information_by_hand(first, second, weight):
    """The loss with numpy's covariances."""
    share = weight / weight.sum()
    spread = (np.cov(first.T, aweights=weight) + np.cov(second.T, aweights=weight)) / 2
    scale = np.trace(spread) / len(spread)
    apart = (first - second).T @ np.diag(share) @ (first - second) / 2
    floor = FLOOR * np.eye(len(spread))
    logs = [np.linalg.slogdet(m / scale + floor)[1] for m in (apart, spread)]
    return (logs[0] - logs[1]) / len(spread) + HOLD * np.log(scale) ** 2


def test_information_is_the_formula_in_numpy():
    rng = np.random.default_rng(3)
    first = rng.normal(size=(40, 3))
    second = first + 0.3 * rng.normal(size=(40, 3)) + 0.1
    weight = rng.random(40)
    found = information(*map(torch.from_numpy, (first, second, weight)))
    total = found.alignment + found.variance + found.covariance
    assert total.item() == pytest.approx(information_by_hand(first, second, weight), rel=1e-4)


def test_information_of_one_dimension_worked_by_hand():
    # Variances 4/3 both; differences ±1: mean square / 2 = 1/2.
    first = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    second = first + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    scale = (4 / 3 + 8 / 3) / 2
    found = information(first, second, ONES)
    assert found.alignment.item() == pytest.approx(np.log(0.5 / scale + FLOOR), rel=1e-4)
    expected = -np.log(1 + FLOOR) + HOLD * np.log(scale) ** 2
    assert found.variance.item() == pytest.approx(expected, rel=1e-3)
    assert found.covariance.item() == pytest.approx(0, abs=1e-6)


def test_dimensions_that_repeat_one_another_cost_covariance():
    rng = torch.Generator().manual_seed(0)
    column, other = torch.randn(200, 2, generator=rng).T
    apart = torch.stack([column, other], dim=1)
    repeated = torch.stack([column, column + 0.01 * other], dim=1)
    weight = torch.ones(200)
    assert 0 <= information(apart, apart, weight).covariance < 0.01
    assert information(repeated, repeated, weight).covariance > 0.5


def test_information_of_blocks_is_the_sum_of_their_own_log_determinants():
    rng = np.random.default_rng(4)
    first = rng.normal(size=(60, 5))
    second = first + 0.4 * rng.normal(size=(60, 5))
    weight = rng.random(60)
    given = [torch.from_numpy(values) for values in (first, second, weight)]
    blocks = [[0, 3], [1, 2, 4]]
    found = information(*given, blocks=[torch.tensor(block) for block in blocks])
    share = weight / weight.sum()
    spread = (np.cov(first.T, aweights=weight) + np.cov(second.T, aweights=weight)) / 2
    scale = np.trace(spread) / 5
    apart = (first - second).T @ np.diag(share) @ (first - second) / 2
    logs = [
        sum(np.linalg.slogdet((m / scale + FLOOR * np.eye(5))[np.ix_(b, b)])[1] for b in blocks)
        for m in (apart, spread)
    ]
    assert found.alignment.item() == pytest.approx(logs[0] / 5, rel=1e-4)
    total = found.alignment + found.variance + found.covariance
    expected = (logs[0] - logs[1]) / 5 + HOLD * np.log(scale) ** 2
    assert total.item() == pytest.approx(expected, rel=1e-4)
    # One block is no block.
    whole = information(*given, blocks=random_blocks(5, 8, seed=1))
    torch.testing.assert_close(whole.covariance, information(*given).covariance)


@pytest.mark.parametrize(("dimensions", "block", "sizes"), [(10, 4, [4, 3, 3]), (64, 64, [64])])
def test_random_blocks_hold_every_dimension_once(dimensions, block, sizes):
    blocks = random_blocks(dimensions, block, seed=3)
    assert sorted(map(len, blocks), reverse=True) == sizes
    assert sorted(torch.cat(blocks).tolist()) == list(range(dimensions))
    again, other = (random_blocks(dimensions, block, seed) for seed in (3, 4))
    assert torch.equal(torch.cat(blocks), torch.cat(again))
    assert not torch.equal(torch.cat(blocks), torch.cat(other))


def test_information_does_not_care_for_scale_but_for_its_hold():
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(50, 3, generator=rng), torch.randn(50, 3, generator=rng)
    weight = torch.ones(50)
    one, other = information(first, second, weight), information(9 * first, 9 * second, weight)
    assert one.alignment.item() == pytest.approx(other.alignment.item(), rel=1e-4)
    assert one.covariance.item() == pytest.approx(other.covariance.item(), abs=1e-5)
    assert other.variance > one.variance


def test_views_that_differ_by_a_constant_are_apart():
    first = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(50)
    here = information(first, first, weight).alignment
    assert information(first, first + 1, weight).alignment > here + 0.5


@pytest.mark.parametrize("objective", [information, vicreg, SIGREG])
def test_a_teacher_is_what_the_other_view_is_aligned_with(objective):
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(50, 3, generator=rng), torch.randn(50, 3, generator=rng)
    weight = torch.ones(50)
    plain = objective(first, second, weight)
    same = objective(first, second, weight, (first, second))
    met = objective(first, second, weight, (second, first))
    assert same.alignment.item() == pytest.approx(plain.alignment.item(), rel=1e-5)
    assert met.alignment < plain.alignment - 0.4
    assert met.named() == plain.named() | {"alignment": met.alignment}


@pytest.mark.parametrize("terms", [information, vicreg, SIGREG])
def test_the_scale_of_weights_is_no_matter(terms):
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(30, 4, generator=rng), torch.randn(30, 4, generator=rng)
    weight = torch.rand(30, generator=rng)
    one, other = terms(first, second, weight), terms(first, second, 7 * weight)
    for name, term in one.named().items():
        assert term.item() == pytest.approx(getattr(other, name).item(), rel=1e-4)


@pytest.mark.parametrize("terms", [information, vicreg, SIGREG])
def test_a_token_of_no_weight_is_not_seen(terms):
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(9, 4, generator=rng), torch.randn(9, 4, generator=rng)
    weight = torch.ones(9)
    weight[-1] = 0
    one, other = terms(first, second, weight), terms(first[:-1], second[:-1], weight[:-1])
    for name, term in one.named().items():
        assert term.item() == pytest.approx(getattr(other, name).item(), rel=1e-4)


@pytest.mark.parametrize("terms", [information, vicreg, SIGREG])
def test_terms_are_taken_in_float32(terms):
    tokens = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = terms(tokens, tokens, torch.ones(9)).named().values()
    assert {term.dtype for term in found} == {torch.float32}


@pytest.mark.parametrize("terms", [information, vicreg, SIGREG])
def test_both_sides_have_a_gradient(terms):
    first = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    second = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = terms(first, second, torch.ones(9))
    torch.stack(list(found.named().values())).sum().backward()
    assert first.grad.abs().min() > 0
    assert second.grad.abs().min() > 0


def test_dimensions_of_a_surveys_own_are_asked_for_no_agreement_but_still_vary_and_differ():
    rng = torch.Generator().manual_seed(5)
    first, second = torch.randn(2, 60, 5, generator=rng)
    weight = torch.rand(60, generator=rng)
    whole = information(first, second, weight)
    found = information(first, second, weight, agreeing=3)
    assert (found.variance, found.covariance) == (whole.variance, whole.covariance)
    # As if views that agree on the last two had been compared, whose squares are then FLOOR alone.
    same = torch.cat([first[:, :3], second[:, 3:]], dim=1)
    spread = (
        covariance_matrix(first, weight / weight.sum()).diagonal().mean()
        + covariance_matrix(second, weight / weight.sum()).diagonal().mean()
    ) / 2
    apart = (same - second).T @ torch.diag(weight / weight.sum()) @ (same - second) / 2
    logs = torch.logdet(apart[:3, :3] / spread + FLOOR * torch.eye(3))
    assert found.alignment.item() == pytest.approx(logs.item() / 5, rel=1e-4)


def test_blocks_lose_the_dimensions_of_a_surveys_own():
    rng = torch.Generator().manual_seed(6)
    first, second = torch.randn(2, 60, 5, generator=rng)
    blocks = [torch.tensor([4, 0]), torch.tensor([1, 3, 2])]
    kept = [torch.tensor([0]), torch.tensor([1, 2])]
    own = information(first, second, ONES.repeat(15), blocks=blocks, agreeing=3).alignment
    by_hand = information(first, second, ONES.repeat(15), blocks=kept).alignment
    assert own.item() == pytest.approx(by_hand.item(), rel=1e-6)
