"""Implants lie where they say, as bright as they say, and the position term counts errors."""

import numpy as np
import pytest
import torch

from jaisp.config.train import PositionConfig, TrainConfig
from jaisp.train.implants import GAUSSIAN, Implanted, Implants, point_sources
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.position import PositionHead, middle, position_term

CPU = torch.device("cpu")


def settings(sources):
    return TrainConfig(position=PositionConfig(sources=sources))


@pytest.fixture
def patches(store):
    numbers = store.where("train")
    return Patches(store, numbers, measure_noise(store, numbers), 1.0, "read")


@pytest.mark.parametrize("grid", [0.1, 0.2, 0.32])
def test_a_point_source_lies_where_it_is_put(grid):
    place = torch.tensor([[3.03, 2.71], [2.5, 3.4]])
    fwhm = grid * torch.tensor([[2.5, 3.5], [4.0, 2.2]])
    images = point_sources(place, fwhm, grid, round(6 / grid)).double()
    axis = (torch.arange(images.shape[-1]) + 0.5) * grid
    # Squared, so that the wings beyond the image count for nothing.
    light = images**2
    total = light.sum(dim=(2, 3))
    y, x = (light.sum(dim=axes) @ axis.double() / total for axes in (3, 2))
    undersampled = 0.01 * grid
    torch.testing.assert_close(y, place[:, :1].double().expand(2, 2), rtol=0, atol=undersampled)
    torch.testing.assert_close(x, place[:, 1:].double().expand(2, 2), rtol=0, atol=undersampled)
    torch.testing.assert_close(total, torch.ones(2, 2).double(), rtol=0, atol=1e-5)


def test_implants_come_from_seed_and_step_alone(patches):
    one, other = (Implants(patches, settings(5)) for _ in range(2))
    other.draw(1, "rubin")
    first, second = one.draw(7, "rubin"), other.draw(7, "rubin")
    assert torch.equal(first.offset, second.offset)
    assert all(torch.equal(first.codes[name], second.codes[name]) for name in first.codes)
    assert not torch.equal(first.offset, one.draw(8, "rubin").offset)
    assert not torch.equal(first.offset, one.draw(7, "euclid").offset)


def test_an_implant_is_found_in_its_window_where_it_was_put(patches):
    implants = Implants(patches, settings(40))
    draw = implants.draw(2, "euclid")
    bright = torch.full_like(draw.snr, 3000.0)
    shown = implants.show(type(draw)(**{**draw.__dict__, "snr": bright}), CPU)
    flux = shown.inputs[:, :, 0].sinh().sum(dim=1)
    side = flux.shape[-1]
    peak = flux.flatten(1).argmax(dim=1)
    grid = patches.store.grid_arcsec("euclid")
    token = patches.store.token_arcsec
    found = torch.stack([peak // side, peak % side], dim=1) * grid + grid / 2
    found = found - (implants.window // 2 + 0.5) * token
    assert (found - shown.offset).abs().max() <= 0.51 * grid
    assert shown.offset.abs().max() <= token


def test_the_error_is_that_of_the_snr(patches):
    implants = Implants(patches, settings(30))
    draw = implants.draw(2, "rubin")
    shown = implants.show(draw, CPU)
    weights = (draw.snr / (GAUSSIAN * draw.fwhm)).square().sum(dim=1)
    grid = patches.store.grid_arcsec("rubin")
    expected = torch.hypot(weights.rsqrt().clamp(max=1.6), torch.tensor(0.01 * grid))
    torch.testing.assert_close(shown.error, expected)
    total = draw.snr.square().sum(dim=1).sqrt()
    assert total.min() >= 4.99
    assert total.max() <= 300.1


def test_in_correlated_noise_the_same_snr_takes_more_flux(patches, monkeypatch):
    draws, images = [], []
    for factor in (1.0, 2.5):
        known = np.full((3, 2), factor, np.float32)
        monkeypatch.setattr(type(patches.store), "noise_correlation", lambda *_, own=known: own)
        implants = Implants(patches, settings(10))
        draws.append(implants.draw(2, "rubin"))
        none = patches.inputs(draws[-1].codes, "rubin", CPU)[:, :, 0].sinh()
        shown = implants.show(draws[-1], CPU)
        images.append((shown.inputs[:, :, 0].sinh() - none, shown.error))
    assert torch.equal(draws[0].snr, draws[1].snr)
    torch.testing.assert_close(draws[1].correlation, torch.full_like(draws[1].snr, 2.5))
    (white, error), (correlated, same) = images
    torch.testing.assert_close(correlated, 2.5 * white, rtol=1e-3, atol=1e-2)
    assert torch.equal(error, same)


def test_missing_pixels_stay_missing(patches):
    implants = Implants(patches, settings(30))
    shown = implants.show(implants.draw(3, "rubin"), CPU)
    assert (
        shown.inputs[:, :, :2][shown.inputs[:, :, 1:2].expand(-1, -1, 2, -1, -1) == 0] == 0
    ).all()


def test_the_term_worked_by_hand():
    implanted = Implanted(
        torch.zeros(2, 1, 3, 2, 2),
        torch.tensor([[0.4, 0.0], [-0.8, 0.2]]),
        torch.tensor([0.1, 0.4]),
    )
    told = torch.tensor([[0.5, 0.25], [0.0, 0.25]])  # tokens of 0.8″
    # |0.4 − 0.4| + |0.2 − 0| over √(0.1 · 0.8), and |0 + 0.8| + |0.2 − 0.2| over √(0.4 · 0.8)
    expected = np.mean([0, 0.2 / np.sqrt(0.08), 0.8 / np.sqrt(0.32), 0])
    assert position_term(told, implanted, 0.8).item() == pytest.approx(expected, rel=1e-6)


def test_the_head_reads_the_token_in_the_middle():
    tokens = torch.zeros(1, 3, 6, 6)
    tokens[0, :, 3, 3] = torch.tensor([1.0, 2.0, 3.0])
    head = PositionHead(3, seed=1)
    torch.testing.assert_close(head(middle(tokens)), head.map(torch.tensor([[1.0, 2.0, 3.0]])))
