"""Peaks say where a source lies among others, and what shape it has, whatever the pixels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.model.inputs import asinh
from jaisp.model.moments import SHARP, WINDOWS, Moments
from jaisp.model.peaks import LONGEST, PLACE, SHAPE, parabola, twist
from tests.model.stars import star


def numbers_of(inputs, n, grid, fwhm):
    """Of the middle token, with fresh filters for a PSF: places and shapes, [window, map, 2], and
    widths, [window, map]."""
    torch.manual_seed(0)
    layer = Moments(inputs.shape[1], n, grid, 0.1, 2)
    layer.begin(torch.full((inputs.shape[1],), fwhm))
    with torch.no_grad():
        found = layer(inputs, torch.arange(inputs.shape[1]))[0][0].double()
    middle, each = inputs.shape[-1] // n // 2, len(WINDOWS) * len(SHARP)
    place, shape, width = found[: 5 * each, middle, middle].split([2 * each, 2 * each, each])
    return *(part.view(len(WINDOWS), len(SHARP), 2) for part in (place, shape)), width


def peaks_of(*given):
    return numbers_of(*given)[0]


@settings(max_examples=30, deadline=None)
@given(
    y=st.floats(-0.7, 0.7),
    x=st.floats(-0.7, 0.7),
    snr=st.sampled_from([50.0, 500.0, 3e3]),
    scale=st.sampled_from([(8, 0.1, 0.2), (8, 0.1, 0.9), (4, 0.2, 0.7), (5, 0.32, 0.9)]),
)
def test_peaks_lie_where_a_source_does_however_bright(y, x, snr, scale):
    n, grid, fwhm = scale
    found = peaks_of(star((y, x), snr, n, grid, fwhm=fwhm), n, grid, fwhm)
    # Of the wide window: a source within ± .7 of a token lies whole in its flat part.
    expected = torch.tensor([y, x], dtype=torch.float64).expand(2, 2)
    torch.testing.assert_close(found[1], expected, rtol=0, atol=0.06 / n)


def test_a_fainter_neighbour_draws_no_peak_along():
    """Half as bright, a token away, in the wide window, where a centroid would be off by .27."""
    n, grid, fwhm = 8, 0.1, 0.2
    bright, faint = (star((0.0, x), snr, n, grid, fwhm=fwhm) for x, snr in ((0.1, 60), (0.9, 30)))
    flux = bright[:, :, 0].sinh() + faint[:, :, 0].sinh()
    both = torch.cat([asinh(flux)[:, :, None], bright[:, :, 1:]], dim=2)
    drawn = (peaks_of(both, n, grid, fwhm)[1, :, 1] - 0.1).abs()
    assert drawn.max() < 0.005


def test_the_light_around_a_source_draws_one_of_the_peaks_alone():
    """A star on the slope of a broad galaxy: the filter whose sum is zero sees the star."""
    n, grid, fwhm = 8, 0.1, 0.25
    inputs = star((0.2, -0.1), 60, n, grid, fwhm=fwhm)
    side = inputs.shape[-1]
    slope = torch.linspace(0.0, 8.0, side).expand(1, 1, side, side)
    flux = inputs[:, :, 0].sinh() + slope
    sloped = torch.cat([asinh(flux)[:, :, None], inputs[:, :, 1:]], dim=2)
    still, drawn = (peaks_of(each, n, grid, fwhm)[0, :, 1] for each in (inputs, sloped))
    away = (drawn - still).abs()
    assert [own.alone for own in SHARP] == [True, False]
    assert away[0] < 0.3 * away[1]


@pytest.mark.parametrize("dim", [2, 3])
def test_the_step_to_a_parabolas_peak_is_exact(dim):
    places = torch.arange(9.0)
    line = 5.0 - 0.3 * (places - 4.3).square()
    height = line.view(1, 1, -1, 1) if dim == 2 else line.view(1, 1, 1, -1)
    step, _ = parabola(height.expand(1, 1, 9, 9), dim)
    found = step[0, 0, :, 3] if dim == 2 else step[0, 0, 3]
    torch.testing.assert_close(found[1:-1], (4.3 - places[1:-1]).clamp(-LONGEST, LONGEST))
    assert found[0] == found[-1] == 0
    assert (parabola(torch.ones(1, 1, 9, 9), dim)[0] == 0).all()
    rising = places.view(1, 1, -1, 1) if dim == 2 else places.view(1, 1, 1, -1)
    step, _ = parabola(rising.expand(1, 1, 9, 9), dim)
    assert (step[0, 0, 1:-1, 1:-1] == LONGEST).all()


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 120.0])
def test_the_shape_of_a_gaussian_is_that_of_its_second_moments(angle):
    n, grid, fwhm, ratio = 8, 0.1, 0.5, 1.6
    side, turn = 7 * n, math.radians(angle)
    axis = (torch.arange(side, dtype=torch.float64) - side / 2 + 0.5) * grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    sigma = fwhm / 2.3548
    flux = 400 * torch.exp(-0.5 * ((along / (ratio * sigma)) ** 2 + (across / sigma) ** 2))
    valid = torch.ones_like(flux)
    inputs = torch.stack([asinh(flux), valid, 0 * valid])[None, None].float()
    shape = numbers_of(inputs, n, grid, fwhm)[1][0, 1]
    # The filter, whose sum isn't zero, adds about the PSF's own moments.
    wide, narrow = (1 + ratio**2) * sigma**2, 2 * sigma**2
    size = (wide - narrow) / (wide + narrow)
    expected = size * torch.tensor([math.cos(2 * turn), math.sin(2 * turn)])
    torch.testing.assert_close(shape.float(), expected.float(), rtol=0, atol=0.35 * size)
    assert torch.dot(shape.float(), expected.float()) > 0.9 * shape.norm() * expected.norm()


def test_a_round_source_has_no_shape_and_a_wider_one_another_width():
    n, grid = 8, 0.1
    found = [numbers_of(star((0.1, -0.2), 200, n, grid, fwhm=f), n, grid, 0.5) for f in (0.5, 0.8)]
    for _, shape, _ in found:
        torch.testing.assert_close(shape, torch.zeros_like(shape), rtol=0, atol=0.03)
    assert (found[1][2] > found[0][2] + 0.05).all()


def test_curvatures_of_a_quadratic_are_exact():
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    height = (-0.5 * (0.4 * y**2 + 0.2 * x**2) + 0.1 * x * y)[None, None]
    for dim, expected in ((2, 0.4), (3, 0.2)):
        inner = parabola(height, dim)[1][..., 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.full_like(inner, expected))
    inner = twist(height)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.1))
    assert twist(height)[..., 0, :].abs().max() == 0
    assert (PLACE, SHAPE) == (2, 2)
