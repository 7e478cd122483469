"""Fluxes about tokens are those of the pixels, and the photometry term counts errors."""

import json
import math

import pytest
import torch

from jaisp.config.train import PhotometryConfig
from jaisp.model import Architecture, Model, SurveyPixels
from jaisp.model.fluxes import SIDES
from jaisp.model.inputs import network_inputs
from jaisp.train import train
from jaisp.train.photometry import (
    KINDS,
    LEAST_ERROR,
    Fluxes,
    FluxHead,
    Photometer,
    photometry_term,
)

N, SIDE = 4, 5
BANDS = ["g", "r"]
TYPICAL = torch.tensor([2.0, 5.0])


def fresh_model():
    torch.manual_seed(0)
    surveys = {
        "rubin": SurveyPixels(bands=BANDS, grid_arcsec=0.4, pixels_per_token=N),
        "euclid": SurveyPixels(bands=["VIS"], grid_arcsec=0.2, pixels_per_token=2 * N),
    }
    return Model(Architecture(surveys=surveys, token_arcsec=1.6, dimensions=6, size="tiny"))


@pytest.fixture
def photometer():
    return Photometer(fresh_model())


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(1)
    pixels = 2, len(BANDS), N * SIDE, N * SIDE
    flux = 30 * torch.randn(pixels, generator=generator)
    noise = 1 + torch.rand(pixels, generator=generator)
    return flux, noise


def measured(photometer, flux, noise, valid=None, correlation=None):
    """Of value, error and known: [sample, row, column, band, kind]."""
    mask = None if valid is None else (~valid).to(torch.uint8)
    inputs = network_inputs(flux, noise, mask, TYPICAL)
    correlation = torch.ones(len(flux), len(BANDS)) if correlation is None else correlation
    shape = len(flux), SIDE, SIDE, len(BANDS), KINDS
    return [each.view(shape) for each in photometer("rubin", inputs, correlation)]


def star(place):
    """Two bands of a star, one twice as bright, this many tokens from the edge; and their noise."""
    axis = torch.arange(N * SIDE) + 0.5
    profile = torch.exp(-0.5 * (axis - place * N).square())
    flux = (TYPICAL * torch.tensor([50.0, 100.0]))[:, None, None] * torch.outer(profile, profile)
    return flux[None], TYPICAL[:, None, None].expand(flux.shape)[None]


def test_fluxes_in_squares_are_sums_and_their_errors_those_of_correlated_noise(photometer, views):
    flux, noise = views
    correlation = torch.tensor([[1.0, 2.5], [1.5, 1.0]])
    value, error, known = measured(photometer, flux, noise, correlation=correlation)
    row, column = 2, 3
    for number, side in enumerate(SIDES):
        y, x = (slice((k - side // 2) * N, (k + side // 2 + 1) * N) for k in (row, column))
        unit = TYPICAL * side * N
        total = flux[:, :, y, x].sum(dim=(2, 3)) / unit
        sigma = correlation * noise[:, :, y, x].square().sum(dim=(2, 3)).sqrt() / unit
        torch.testing.assert_close(value[:, row, column, :, number], total.asinh())
        slope = 1 / (1 + total.square()).sqrt()
        torch.testing.assert_close(error[:, row, column, :, number], sigma * slope)
        assert known[:, row, column, :, number].all()


def test_a_star_has_its_flux_under_the_filters_wherever_it_lies(photometer):
    first, second = (
        measured(photometer, *star(place))[0][0, 2, 2, :, len(SIDES) :] for place in (2.3, 2.8)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0.1)
    twice = (first[1].sinh() / first[0].sinh()).tolist()
    # Filters begin a little at random.
    assert twice == pytest.approx([2.0] * len(twice), rel=0.2)


def test_what_has_too_few_pixels_is_not_known(photometer, views):
    flux, noise = views
    valid = torch.ones_like(flux, dtype=torch.bool)
    valid[0, 1, 2 * N : 3 * N, 2 * N : 3 * N] = False
    _, _, known = measured(photometer, flux, noise, valid)
    assert not known[0, 2, 2, 1].any()  # Its own square, and a ninth of the larger one.
    assert known[0, 2, 3, 1, 0]
    assert not known[0, 2, 3, 1, 1]
    assert known[0, 2, 2, 0].all()
    # Beyond the view nothing is known: of the outermost tokens not the larger square.
    assert known[1, 0, 0, :, [0, 2, 3]].all()
    assert not known[1, 0, 0, :, 1].any()


def test_what_measures_does_not_learn(photometer, views):
    flux, noise = views
    inputs = network_inputs(flux, noise, None, TYPICAL)
    found = photometer("rubin", inputs, torch.ones(2, 2))
    assert not any(each.requires_grad for each in found)
    assert not any(each.requires_grad for each in photometer.parameters())


def test_the_term_worked_by_hand():
    found = Fluxes(
        torch.tensor([[1.0, 2.0], [3.0, 0.0]]),
        torch.tensor([[0.25, 1.0], [LEAST_ERROR / 9, 1.0]]),
        torch.tensor([[True, True], [True, False]]),
    )
    told = torch.tensor([[1.5, 2.0], [3.3, 9.0]])
    weight = torch.tensor([1.0, 0.5])
    # ½ over √¼, 0, and .3 over √(least error) of half the weight; the last is not known.
    expected = (0.5 / 0.5 + 0.0 + 0.5 * 0.3 / math.sqrt(LEAST_ERROR)) / 2.5
    assert photometry_term(told, found, weight).item() == pytest.approx(expected, rel=1e-5)


def test_where_nothing_is_known_nothing_is_asked():
    found = Fluxes(torch.ones(3, 2), torch.ones(3, 2), torch.zeros(3, 2, dtype=torch.bool))
    told = torch.zeros(3, 2, requires_grad=True)
    term = photometry_term(told, found, torch.ones(3))
    term.backward()
    assert term.item() == 0
    assert not told.grad.any()


def test_one_head_reads_tokens_of_every_survey():
    head, again = (FluxHead(6, {"rubin": 2, "euclid": 1}, seed=1) for _ in range(2))
    tokens = torch.randn(4, 6)
    assert head(tokens, "rubin").shape == (4, 2 * KINDS)
    assert head(tokens, "euclid").shape == (4, KINDS)
    assert torch.equal(again(tokens, "rubin"), head(tokens, "rubin"))


def test_training_asks_for_fluxes_in_both_views(config):
    asked = PhotometryConfig(weight=0.3)
    settings = config.train.model_copy(update={"steps": 3, "record_every": 1, "photometry": asked})
    train(config.model_copy(update={"train": settings}))
    history = (config.results / "history.jsonl").read_text()
    lines = [json.loads(line) for line in history.splitlines()]
    for line in lines:
        (kind,) = {name.split("_")[0] for name in line if name.endswith("_photometry")}
        rest = sum(line[f"{kind}_{name}"] for name in ("alignment", "variance", "covariance"))
        places = sum(value for name, value in line.items() if name.startswith("position_"))
        expected = rest + config.train.position.weight * places + 0.3 * line[f"{kind}_photometry"]
        assert line["loss"] == pytest.approx(expected, rel=1e-5)
