"""The frame finds what two views share, whatever linear map hides it."""

import pytest
import torch
from torch.nn.functional import normalize

from jaisp.train.frame import LEAST, canonical_frame
from jaisp.train.objective import covariance_matrix, shares

RHO = torch.tensor([0.98, 0.9, 0.6, 0.3, 0.0])


def linear_map(generator):
    """A turn, and directions from half to twice their size."""
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    return turn * torch.tensor([0.5, 0.7, 1.0, 1.4, 2.0])


def hidden_views(seed, tokens=40_000):
    """Two views that correlate by RHO in five directions, seen through a map and off centre."""
    generator = torch.Generator().manual_seed(seed)
    common, own, other = (torch.randn(tokens, 5, generator=generator) for _ in range(3))
    views = [RHO.sqrt() * common + (1 - RHO).sqrt() * noise for noise in (own, other)]
    hide = linear_map(generator)
    return [3.0 + view @ hide.T for view in views]


@pytest.mark.parametrize("seed", range(3))
def test_a_dimension_is_as_wide_as_views_agree_on_it(seed):
    first, second = hidden_views(seed)
    weight = torch.ones(len(first))
    centre, frame, rho = canonical_frame(first, second, weight)
    torch.testing.assert_close(rho.float(), RHO.clamp(min=LEAST), rtol=0, atol=0.03)
    tokens = torch.cat([first, second]) - centre
    covariance = torch.cov((tokens @ frame.T).T)
    torch.testing.assert_close(covariance, torch.diag(rho.square()).float(), rtol=0, atol=0.02)


def test_another_linear_map_changes_nothing():
    first, second = hidden_views(1)
    weight = torch.rand(len(first), generator=torch.Generator().manual_seed(2))
    turned = linear_map(torch.Generator().manual_seed(3))
    found = []
    for views in ((first, second), (first @ turned, second @ turned)):
        centre, frame, _ = canonical_frame(*views, weight)
        own, other = (normalize((view[:500] - centre) @ frame.T) for view in views)
        found.append(own @ other.T)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.05)


def test_the_last_dimensions_have_a_frame_of_their_own():
    first, second = hidden_views(7)
    weight = torch.ones(len(first))
    centre, frame, rho = canonical_frame(first, second, weight, last=2)
    assert (frame[:3, 3:] == 0).all()
    assert (frame[3:, :3] == 0).all()
    for own in (slice(0, 3), slice(3, 5)):
        alone, block, agreed = canonical_frame(first[:, own], second[:, own], weight)
        torch.testing.assert_close(centre[own], alone)
        torch.testing.assert_close(frame[own, own], block)
        torch.testing.assert_close(rho[own], agreed)


def test_weightless_tokens_do_not_count():
    first, second = hidden_views(4, tokens=500)
    wild = 100 * torch.randn(200, 5, generator=torch.Generator().manual_seed(5))
    weight = torch.cat([torch.ones(500), torch.zeros(200)])
    _, alone, _ = canonical_frame(first, second, torch.ones(500))
    _, beside, _ = canonical_frame(torch.cat([first, wild]), torch.cat([second, -wild]), weight)
    torch.testing.assert_close(alone.abs(), beside.abs(), rtol=1e-3, atol=1e-3)


def test_dimensions_that_say_nothing_stay_finite():
    first, second = hidden_views(6, tokens=300)
    first[:, 2] = second[:, 2] = 1.0
    weight = torch.ones(300)
    centre, frame, _ = canonical_frame(first, second, weight)
    tokens = (first - centre) @ frame.T
    assert tokens.isfinite().all()
    spread = covariance_matrix(tokens, shares(weight)).diagonal()
    assert spread.max() < 2.0
