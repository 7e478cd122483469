"""A small model of two surveys, and images for it."""

import numpy as np
import pytest
import torch

from jaisp.model import Architecture, Model, SurveyPixels


@pytest.fixture
def model() -> Model:
    torch.manual_seed(5)
    surveys = {
        "rubin": SurveyPixels(bands=["g", "r", "i"], grid_arcsec=0.2, pixels_per_token=8),
        "vista": SurveyPixels(bands=["Z", "Ks"], grid_arcsec=0.32, pixels_per_token=5),
    }
    architecture = Architecture(surveys=surveys, token_arcsec=1.6, dimensions=8, size="tiny")
    return Model(architecture).eval()


@pytest.fixture
def image() -> tuple[np.ndarray, np.ndarray]:
    """Flux and noise of two samples of rubin's three bands, 12 × 10 tokens."""
    rng = np.random.default_rng(2)
    noise = rng.uniform(1, 3, (2, 3, 96, 80)).astype(np.float32)
    flux = noise * rng.standard_normal(noise.shape) + 50 * (rng.random(noise.shape) > 0.99)
    return flux.astype(np.float32), noise
