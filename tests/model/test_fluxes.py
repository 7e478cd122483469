"""Fluxes in squares are those of the pixels, in any set of bands."""

import pytest
import torch

from jaisp.model.fluxes import SIDES, FluxMixer, filtered_fluxes, joined, square_fluxes
from jaisp.model.inputs import network_inputs

N, TOKENS = 4, 5
TYPICAL = torch.tensor([2.0, 5.0, 1.0])


def inputs_of(flux, noise=None, missing=None):
    noise = TYPICAL[:, None, None].expand(flux.shape) if noise is None else noise
    mask = None if missing is None else missing.to(torch.uint8)
    return network_inputs(flux, noise, mask, TYPICAL)


def mixer():
    torch.manual_seed(1)
    mixer = FluxMixer(3, len(SIDES), 8)
    torch.nn.init.normal_(mixer.bias)
    return lambda inputs, bands: mixer(square_fluxes(inputs, N), bands)


@pytest.fixture
def flux():
    pixels = 2, 3, N * TOKENS, N * TOKENS
    return 40 * torch.randn(pixels, generator=torch.Generator().manual_seed(2))


def test_they_are_sums_in_units_of_their_typical_noise(flux):
    noise = torch.rand(flux.shape, generator=torch.Generator().manual_seed(3)) + 0.5
    found = square_fluxes(inputs_of(flux, noise), N)
    row, column = 2, 3
    for number, side in enumerate(SIDES):
        y, x = (slice((k - side // 2) * N, (k + side // 2 + 1) * N) for k in (row, column))
        unit = TYPICAL * side * N
        total = flux[:, :, y, x].sum(dim=(2, 3)) / unit
        torch.testing.assert_close(found.flux[number, :, :, row, column], total)
        sigma = noise[:, :, y, x].square().sum(dim=(2, 3)).sqrt() / unit
        torch.testing.assert_close(found.noise[number, :, :, row, column], sigma)
    assert (found.share[0] == 1).all()
    assert found.share[1, 0, 0, 0, 0].item() == pytest.approx(4 / 9)


def test_missing_pixels_are_taken_to_be_like_the_others():
    flux = torch.full((1, 3, N * TOKENS, N * TOKENS), 6.0)
    missing = torch.zeros(flux.shape, dtype=torch.bool)
    missing[:, :, ::2, ::3] = True
    whole, holed = (square_fluxes(inputs_of(flux, missing=m), N).flux for m in (None, missing))
    torch.testing.assert_close(holed, whole)


def test_a_band_that_is_missing_is_like_one_that_is_not_given(flux):
    mixed = mixer()
    missing = torch.zeros(flux.shape, dtype=torch.bool)
    missing[:, 1] = True
    holed = mixed(inputs_of(flux, missing=missing), torch.arange(3))
    given = mixed(inputs_of(flux)[:, [2, 0]], torch.tensor([2, 0]))
    torch.testing.assert_close(holed, given)
    assert holed.shape == (2, 8, TOKENS, TOKENS)


def test_an_empty_band_is_not_a_missing_one():
    mixed = mixer()
    empty = inputs_of(torch.zeros(1, 3, N * TOKENS, N * TOKENS))
    both, one = (mixed(empty[:, bands], torch.tensor(bands)) for bands in ([0, 1], [0]))
    assert (both - one).abs().max() > 0.1


def test_filtered_fluxes_are_in_units_of_the_typical_noise(flux):
    noise = (3 * TYPICAL)[:, None, None].expand(flux.shape)
    snr = torch.rand(2, 2, 3, TOKENS, TOKENS)
    missing = torch.zeros(flux.shape, dtype=torch.bool)
    missing[:, :, :N, : N // 2] = True
    found = filtered_fluxes(inputs_of(flux, noise, missing), snr, N)
    torch.testing.assert_close(found.flux, 3 * snr)
    torch.testing.assert_close(found.noise, torch.full_like(snr, 3.0))
    assert (found.share[:, :, :, 0, 0] == 0.5).all()
    assert (found.share[:, :, :, 1:] == 1).all()


def test_kinds_stand_one_after_another(flux):
    squares = square_fluxes(inputs_of(flux), N)
    both = joined(squares, squares)
    assert all(len(each) == 2 * len(SIDES) for each in both)
    assert torch.equal(both.flux[len(SIDES) :], squares.flux)
