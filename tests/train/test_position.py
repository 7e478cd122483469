"""Implants lie where they say, as bright as they say, and the position term counts errors."""

import numpy as np
import pytest
import torch

from jaisp.config.train import PositionConfig, TrainConfig
from jaisp.train import implants as implants_module
from jaisp.train.implants import GAUSSIAN, Implanted, Implants, point_sources
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.position import PositionHead, around, position_term, reference

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


def drawn(implants, step, survey):
    return next(draw for draw in implants.draw(step) if draw.survey == survey)


def test_implants_come_from_seed_and_step_alone(patches):
    one, other = (Implants(patches, settings(5)) for _ in range(2))
    other.draw(1)
    first, second = (drawn(implants, 7, "rubin") for implants in (one, other))
    assert torch.equal(first.offset, second.offset)
    assert all(torch.equal(first.codes[name], second.codes[name]) for name in first.codes)
    assert not torch.equal(first.offset, drawn(one, 8, "rubin").offset)


def light(implants, draw, snr=3000.0):
    """Where the brightest pixel of an implant far above all else lies, from its token's centre."""
    bright = torch.full_like(draw.snr, snr)
    shown = implants.show(type(draw)(**{**draw.__dict__, "snr": bright}), CPU)
    flux = shown.inputs[:, :, 0].sinh().sum(dim=1)
    side = flux.shape[-1]
    peak = flux.flatten(1).argmax(dim=1)
    grid = implants.patches.store.grid_arcsec(draw.survey)
    found = torch.stack([peak // side, peak % side], dim=1) * grid + grid / 2
    return shown, found - (draw.token + 0.5) * implants.patches.store.token_arcsec


def test_an_implant_is_found_in_its_window_where_it_was_put(patches):
    implants = Implants(patches, settings(40))
    shown, found = light(implants, drawn(implants, 2, "euclid"))
    grid = patches.store.grid_arcsec("euclid")
    assert (found - shown.offset).abs().max() <= 0.51 * grid
    assert shown.offset.abs().max() <= patches.store.token_arcsec


def test_surveys_are_given_the_same_sources_on_the_same_sky(patches):
    implants = Implants(patches, settings(40))
    assert implants.together
    rubin, euclid = (drawn(implants, 3, survey) for survey in ("rubin", "euclid"))
    assert torch.equal(rubin.offset, euclid.offset)
    # Where the reference token lies in its window differs: it tells nothing of its partner.
    assert not torch.equal(rubin.token, euclid.token)
    # The sky around the reference tokens is the same: so is its flux, in the band that both have.
    skies = []
    for draw in (rubin, euclid):
        shown = implants.show(type(draw)(**{**draw.__dict__, "snr": 0 * draw.snr}), CPU)
        n = patches.n[draw.survey]
        flux = torch.nn.functional.avg_pool2d(shown.inputs[:, 0, 0].sinh(), n)
        skies.append(around(flux, shown).mean(dim=1))
    assert np.corrcoef(*(sky.numpy() for sky in skies))[0, 1] > 0.5


def test_without_common_patches_every_survey_has_its_own_sources(patches, monkeypatch):
    implants = Implants(patches, settings(10))
    monkeypatch.setattr(implants, "together", False)
    rubin, euclid = (drawn(implants, 3, survey) for survey in ("rubin", "euclid"))
    assert not torch.equal(rubin.offset, euclid.offset)


@pytest.mark.parametrize("unknown", [("euclid",), ("rubin", "euclid", "narrow")])
def test_surveys_of_unknown_psf_are_left_out_and_said_so(patches, monkeypatch, caplog, unknown):
    real = implants_module._widths

    def widths(patches, survey):
        return {} if survey in unknown else real(patches, survey)

    monkeypatch.setattr(implants_module, "_widths", widths)
    implants = Implants(patches, settings(5))
    left = [survey for survey in ("rubin", "euclid", "narrow") if survey not in unknown]
    assert sorted(draw.survey for draw in implants.draw(1)) == sorted(left)
    assert caplog.text.count("left out") == len(unknown)


def test_the_error_is_that_of_the_snr(patches):
    implants = Implants(patches, settings(30))
    draw = drawn(implants, 2, "rubin")
    shown = implants.show(draw, CPU)
    weights = (draw.snr / (GAUSSIAN * draw.fwhm)).square().sum(dim=1)
    grid = patches.store.grid_arcsec("rubin")
    expected = torch.hypot(weights.rsqrt().clamp(max=1.6), torch.tensor(0.01 * grid))
    torch.testing.assert_close(shown.error, expected)


def test_one_of_the_surveys_has_the_snr_that_is_drawn(patches):
    implants = Implants(patches, settings(60))
    draws = implants.draw(4)
    levels = torch.stack([draw.snr.square().sum(dim=1).sqrt() for draw in draws])
    within = (levels >= 4.99) & (levels <= 300.1)
    assert within.any(dim=0).all()
    assert levels.max() <= 1000.1


def test_in_correlated_noise_the_same_snr_takes_more_flux(patches, monkeypatch):
    draws, images = [], []
    for factor in (1.0, 2.5):

        def correlation(store, cell, survey, factor=factor):
            return np.full((len(store.bands(survey)), 2), factor, np.float32)

        monkeypatch.setattr(type(patches.store), "noise_correlation", correlation)
        implants = Implants(patches, settings(10))
        draws.append(drawn(implants, 2, "rubin"))
        none = patches.inputs(draws[-1].codes, "rubin", CPU)[:, :, 0].sinh()
        shown = implants.show(draws[-1], CPU)
        images.append((shown.inputs[:, :, 0].sinh() - none, shown.error))
    assert torch.equal(draws[0].snr, draws[1].snr)
    torch.testing.assert_close(draws[1].correlation, torch.full_like(draws[1].snr, 2.5))
    (white, error), (correlated, same) = images
    torch.testing.assert_close(correlated, 2.5 * white, rtol=1e-3, atol=1e-2)
    assert torch.equal(error, same)


def test_some_sources_are_broader_than_the_psf_and_all_of_a_source_s_bands_alike(patches):
    widest = 1.4
    broad = TrainConfig(position=PositionConfig(sources=60, broadest=widest))
    draw = drawn(Implants(patches, broad), 2, "rubin")
    plain = drawn(Implants(patches, settings(60)), 2, "rubin")
    known = np.stack(list(Implants(patches, broad).fwhm["rubin"].values()))
    assert plain.fwhm.max() < 1.04 * known.max()
    times = draw.fwhm / plain.fwhm
    assert times.min() > 0.9
    assert 1.25 < times.max() < 1.45
    torch.testing.assert_close(times, times[:, :1].expand_as(times))
    # Of the same S/N, what is broader is told less well.
    implants = Implants(patches, broad)
    assert (implants.show(draw, CPU).error > implants.show(plain, CPU).error)[
        times[:, 0] > 1.2
    ].all()


def test_missing_pixels_stay_missing(patches):
    implants = Implants(patches, settings(30))
    shown = implants.show(drawn(implants, 3, "rubin"), CPU)
    assert (
        shown.inputs[:, :, :2][shown.inputs[:, :, 1:2].expand(-1, -1, 2, -1, -1) == 0] == 0
    ).all()


def test_the_term_worked_by_hand():
    implanted = Implanted(
        torch.zeros(2, 1, 3, 2, 2),
        torch.ones(2, 2, dtype=torch.long),
        torch.tensor([[0.4, 0.0], [-0.8, 0.2]]),
        torch.tensor([0.1, 0.4]),
        torch.ones(2, 3, 3),
    )
    told = torch.tensor([[0.5, 0.25], [0.0, 0.25]])  # tokens of 0.8″
    # |0.4 − 0.4| + |0.2 − 0| over √(0.1 · 0.8), and |0 + 0.8| + |0.2 − 0.2| over √(0.4 · 0.8)
    expected = np.mean([0, 0.2 / np.sqrt(0.08), 0.8 / np.sqrt(0.32), 0])
    assert position_term(told, implanted, 0.8).item() == pytest.approx(expected, rel=1e-6)


def test_the_head_reads_the_reference_token():
    tokens = torch.zeros(1, 6, 6, 3)
    tokens[0, 2, 4] = torch.tensor([1.0, 2.0, 3.0])
    tokens[0, 1, 5] = 7.0
    token = torch.tensor([[2, 4]])
    implanted = Implanted(torch.zeros(1), token, torch.zeros(1, 2), torch.ones(1), tokens[..., 0])
    found = around(tokens, implanted)
    assert torch.equal(reference(found), torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.equal(found[0, 2], torch.full((3,), 7.0))
    assert torch.equal(around(implanted.token_snr, implanted), found[..., 0])
    head = PositionHead(3, seed=1)
    torch.testing.assert_close(head(reference(found)), head.map(found[:, 4]))
