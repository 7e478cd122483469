"""What encoders are shown of a window is the same, prepared once or each time."""

import numpy as np
import pytest
import torch

from jaisp.evaluate.controls import Blank
from jaisp.evaluate.scene import Scene, WithoutBand
from jaisp.model import Architecture, Model, SurveyPixels, random_model

BANDS = ["g", "r", "i"]
TOKENS, SIDE = 24, 8  # a window's, and a token's pixels


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    survey = SurveyPixels(bands=BANDS, grid_arcsec=0.2, pixels_per_token=SIDE)
    return Model(
        Architecture(surveys={"rubin": survey}, token_arcsec=1.6, dimensions=8, size="tiny")
    ).eval()


@pytest.fixture(scope="module")
def planes():
    rng = np.random.default_rng(4)
    shape = len(BANDS), TOKENS * SIDE, TOKENS * SIDE
    flux = rng.standard_normal(shape).astype(np.float32)
    flux[:, : 3 * SIDE] = np.nan  # beyond the survey
    flux[1, :, : 5 * SIDE] = np.nan  # one band ends earlier
    noise = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return flux, noise, (rng.random(shape) < 0.01).astype(np.uint8)


def encoded(encoder, planes):
    with torch.inference_mode():
        return encoder.encode(*(plane[None] for plane in planes), survey="rubin", bands=BANDS)


def test_tokens_are_those_of_each_encoder_by_itself(model, planes):
    scene, twin = Scene(*planes, "rubin", BANDS), random_model(model).eval()
    seeing = [model, twin, *(WithoutBand(own, band) for own in (model, twin) for band in BANDS)]
    for encoder in seeing:
        torch.testing.assert_close(
            scene.encode(encoder), encoded(encoder, planes), rtol=1e-4, atol=1e-5
        )
    blank = scene.encode(Blank(model, 1))
    torch.testing.assert_close(blank, encoded(Blank(model, 1), planes), rtol=0, atol=0)


@pytest.mark.parametrize("bands", [["i"], ["g", "i"], BANDS])
def test_some_of_the_bands_are_shown_as_if_they_were_all(model, planes, bands):
    chosen = [BANDS.index(band) for band in bands]
    part = Scene(*(plane[chosen] for plane in planes), "rubin", bands)
    whole = Scene(*planes, "rubin", BANDS)
    blanks = Blank(model, 2), Blank(model, 2)
    for one, other in ((model, model), blanks):
        tokens = whole.encode(one, bands)
        torch.testing.assert_close(tokens, part.encode(other), rtol=1e-4, atol=1e-5)


def test_models_that_know_another_noise_are_shown_it(model, planes):
    other = random_model(model, seed=5).eval()
    other.get_buffer("noise_rubin").mul_(3.0)
    scene = Scene(*planes, "rubin", BANDS)
    for encoder in (model, other, model):
        torch.testing.assert_close(scene.encode(encoder), encoded(encoder, planes), rtol=0, atol=0)


def test_scales_come_along(model, planes):
    tokens, scales = Scene(*planes, "rubin", BANDS).encode(model, scales=True)
    assert tokens.shape == (1, 8, TOKENS, TOKENS)
    assert set(scales) == {"fine", "token"}
