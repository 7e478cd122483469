"""The noise of sums over correlated pixels, from what apertures of two sizes tell."""

import numpy as np
import pytest
from scipy.signal import fftconvolve

from jaisp.simulate.resample import lanczos
from jaisp.store.correlation import DISC_OF_FWHM, DISC_OF_SQUARE, correlation_within

GRID = 0.1


@pytest.fixture(scope="module")
def scatter():
    """Scatter of sums of NISP-like noise under weights, over that of white noise."""
    rng = np.random.default_rng(3)
    image = lanczos(rng.standard_normal((500, 500)).astype(np.float32), 3)

    def measured(weights):
        sums = fftconvolve(image, weights, mode="valid")
        return sums.std() / np.sqrt((weights**2).sum())

    return measured


def offsets(reach):
    return np.mgrid[-reach : reach + 1, -reach : reach + 1] * GRID


def disc(diameter):
    return (np.hypot(*offsets(int(diameter / 2 / GRID))) <= diameter / 2 + 1e-9).astype(float)


@pytest.fixture(scope="module")
def known(scatter):
    """As a store has it, of one band."""
    return np.array([[scatter(disc(1.0)), scatter(disc(3.0))]], np.float32)


def test_what_was_measured_comes_back(known):
    for place, diameter in enumerate((1.0, 3.0)):
        found = correlation_within(known, diameter, GRID)
        np.testing.assert_allclose(found, known[:, place], rtol=1e-6)
    assert correlation_within(known, GRID, GRID) == pytest.approx(1)
    assert correlation_within(known, GRID / 2, GRID) == pytest.approx(1)
    assert correlation_within(known, 9.0, GRID) == pytest.approx(known[:, 1])


@pytest.mark.parametrize("pixels", [3, 4, 5, 8, 16, 32])
def test_squares_of_resampled_noise(scatter, known, pixels):
    found = correlation_within(known, DISC_OF_SQUARE * pixels * GRID, GRID)
    assert found == pytest.approx(scatter(np.ones((pixels, pixels))), rel=0.06)


@pytest.mark.parametrize("fwhm", [0.4, 0.6, 1.0])
def test_matched_filters_of_resampled_noise(scatter, known, fwhm):
    y, x = offsets(round(2 * fwhm / GRID))
    profile = np.exp(-4 * np.log(2) * (x**2 + y**2) / fwhm**2)
    found = correlation_within(known, DISC_OF_FWHM * fwhm, GRID)
    assert found == pytest.approx(scatter(profile), rel=0.1)


def test_bands_differ_and_the_unmeasured_are_white():
    known = np.array([[np.nan, np.nan], [2, 3], [0, 0], [np.nan, 2]], np.float32)
    found = correlation_within(known, 1.0, GRID)
    np.testing.assert_allclose(found, [1, 2, 1, 1])
    by_source = correlation_within(known, np.full((5, 4), 3.0), GRID)
    np.testing.assert_allclose(by_source, np.tile([1, 3, 1, 2], (5, 1)))


@pytest.mark.parametrize("grid", [1.0, 1.5, 4.0])
def test_pixels_wider_than_the_apertures(grid):
    known = np.array([[1.1, 1.3]], np.float32)
    found = [correlation_within(known, diameter, grid)[0] for diameter in (0.5, 1.0, 2.0, 6.0)]
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert found[-1] == pytest.approx(1.3)
