"""Moments say where light lies, whatever the pixels; filters are what convolutions would give."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from jaisp.model.inputs import asinh
from jaisp.model.moments import (
    FAINTEST,
    PEAKS,
    SHIFT,
    WINDOWS,
    Moments,
    filter_widths,
    squares,
)
from jaisp.model.smoothing import smoothed
from tests.model.stars import star


def moments_of(inputs, n, grid, maps=4, finest=0.1):
    torch.manual_seed(0)
    layer = Moments(inputs.shape[1], n, grid, finest, maps)
    with torch.no_grad():
        found = layer(inputs, torch.arange(inputs.shape[1]))[0][:, PEAKS:]
    middle = inputs.shape[-1] // n // 2
    return found.unflatten(1, (maps, -1))[0, :, :, middle, middle].double()


@settings(max_examples=20, deadline=None)
@given(
    y=st.floats(-0.7, 0.7),
    x=st.floats(-0.7, 0.7),
    scale=st.sampled_from([(8, 0.1), (4, 0.2), (5, 0.32), (8, 0.2)]),
)
def test_the_centre_is_that_of_a_bright_source(y, x, scale):
    n, grid = scale
    found = moments_of(star((y, x), 200, n, grid, fwhm=0.9), n, grid)
    expected = torch.tensor([y, x], dtype=torch.float64).expand(2, 2)
    # The wide window's maps: a source within ± .7 of a token lies whole in its flat part.
    torch.testing.assert_close(found[2:, :2], expected, rtol=0, atol=0.1 / n)


def test_the_brightest_and_the_emptiest_sky_have_peaks_and_gradients():
    layer = Moments(1, 8, 0.1, 0.1, 2)
    for snr in (0.0, 1e5):
        inputs = star((0.1, 0.2), snr, 8, 0.1, seed=3)
        found = layer(inputs, torch.arange(1))[0]
        assert found.isfinite().all()
        layer.zero_grad()
        found.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
    assert 88 - math.log(8**2 * 9) > SHIFT  # sums of weights, of which float32 holds e to the 88th


def test_centres_are_within_twice_what_the_noise_allows_before_any_training():
    n, grid, fwhm, snr = 4, 0.2, 0.8, 30.0
    bound = fwhm / 2.3548 / snr / (n * grid)  # tokens, of a Gaussian in white noise
    errors = []
    for seed in range(1, 40):
        place = np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
        found = moments_of(star(place, snr, n, grid, fwhm=fwhm, seed=seed), n, grid)
        errors.append((found[:, :2] - torch.from_numpy(place)).numpy())
    scatter = np.median(np.abs(errors), axis=(0, 2)) / 0.6745
    assert scatter.min() < 2 * bound


def test_a_wider_source_has_wider_moments_along_its_own_axis():
    inputs = star((0.1, -0.2), 1e3, 8, 0.1, fwhm=0.5)
    flux = inputs[:, :, 0].sinh()
    longer = functional.conv2d(flux, torch.ones(1, 1, 9, 1) / 9, padding=(4, 0))
    blurred = torch.cat([asinh(longer)[:, :, None], inputs[:, :, 1:]], dim=2)
    round_, long = (moments_of(each, 8, 0.1)[2] for each in (inputs, blurred))
    assert long[2] > 1.2 * round_[2]
    assert long[4] == pytest.approx(round_[4].item(), rel=0.1)
    assert abs(long[3]) < 0.05 * long[2]


def test_squares_of_pixels_as_one_tell_the_same_of_what_they_resolve():
    inputs = star((0.31, -0.42), 200, 16, 0.1, fwhm=0.9)
    fine, coarse = (moments_of(inputs, 16, 0.1, finest=finest) for finest in (0.1, 0.2))
    torch.testing.assert_close(coarse[2:, :2], fine[2:, :2], rtol=0, atol=0.01)


def test_without_light_the_centre_is_the_tokens_own():
    found = moments_of(torch.zeros(1, 2, 3, 56, 56), 8, 0.1)
    torch.testing.assert_close(found[:, :2], torch.zeros(4, 2).double())


def test_missing_pixels_have_no_weight():
    inputs = star((0.3, 0.2), 100, 8, 0.1)
    inputs[..., :28] = 0  # the left half, the source's own middle with it
    torch.manual_seed(0)
    layer = Moments(1, 8, 0.1, 0.1, 4)
    plain, _, seen, _ = layer._rise(inputs, torch.arange(1))
    assert (layer._weight(plain, seen)[..., :28] == 0).all()


def test_noise_that_pixels_share_is_measured_and_divided_by():
    white = np.random.default_rng(1).normal(size=(2, 1, 160, 160)).astype(np.float32)
    shared = functional.avg_pool2d(torch.from_numpy(white), 3, stride=1, padding=1) * 3
    layer = Moments(1, 8, 0.1, 0.1, 2)

    def scatter(signal):
        valid = torch.ones_like(signal)
        return layer.measure(torch.stack([asinh(signal), valid, 0 * valid], dim=2))[0]

    torch.testing.assert_close(scatter(torch.from_numpy(white)), torch.ones(4), rtol=0.05, atol=0)
    # Sums over an area that is wide against the noise's own grow by 3.
    assert scatter(shared)[-1].item() == pytest.approx(3, rel=0.1)


def test_smoothing_is_a_convolution_along_both_axes():
    planes = torch.randn(3, 70, 45, generator=torch.Generator().manual_seed(1))
    filters = torch.tensor([[1.0, 2.0, 3.0, 2.0, 1.0], [0.0, 1.0, 0.0, 1.0, 0.0]])
    along_y = functional.conv2d(planes[:, None], filters[:, None, :, None], padding=(2, 0))
    both = functional.conv2d(along_y, filters[:, None, None], padding=(0, 2), groups=2)
    torch.testing.assert_close(smoothed(planes, filters), both)


def test_filters_resolve_the_finest_psf_and_the_coarsest():
    for grid in (0.1, 0.2, 0.32, 0.05):
        widths = filter_widths(grid)
        assert widths == sorted(widths)
        assert widths[0] >= 0.45
        assert widths[-1] * grid > 0.44
    assert WINDOWS[0][1] < WINDOWS[1][1]
    assert FAINTEST > 0


def test_the_snr_is_a_sources_own_wherever_it_lies():
    torch.manual_seed(0)
    layer = Moments(2, 8, 0.1, 0.1, 4)
    # Filters as wide as the source, and a little at random.
    layer.begin(torch.tensor([0.7, 0.7]))
    for place in ((0.0, 0.0), (0.3, -0.4)):
        bright, faint = (star(place, snr, 8, 0.1, fwhm=0.7) for snr in (200, 40))
        inputs = torch.cat([bright, faint], dim=1)
        with torch.no_grad():
            found = layer(inputs, torch.arange(2))[1]
        assert found.shape == (len(WINDOWS), 1, 2, 7, 7)
        ratio = found[:, 0, 0, 3, 3] / found[:, 0, 1, 3, 3]
        torch.testing.assert_close(ratio, torch.full_like(ratio, 5.0), rtol=0.25, atol=0)
        assert (found[:, 0, 0, 3, 3] > 100).all()
        assert (found[:, 0, 0, 3, 3] < 230).all()


def test_empty_sky_has_no_snr():
    noise = star((0.0, 0.0), 0, 8, 0.1, tokens=20, seed=4)
    torch.manual_seed(0)
    with torch.no_grad():
        found = Moments(1, 8, 0.1, 0.1, 4)(noise, torch.arange(1))[1]
    assert found.mean().abs() < 1.0
    assert found.abs().max() < 4.0


def test_sums_of_positive_squares_and_their_gradients_are_those_of_their_parts():
    torch.manual_seed(3)
    filters = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    planes = torch.randn(4, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    before = torch.rand(5, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    positive = torch.einsum("mj,jsyx->msyx", filters, planes).relu()
    found = squares(before.clone(), filters, planes)
    torch.testing.assert_close(found, before + positive.square())
    assert torch.autograd.gradcheck(
        lambda *given: squares(given[0].clone(), *given[1:]), (before, filters, planes)
    )
