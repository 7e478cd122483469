"""Colour pictures: white light is white, whatever the depths of the bands."""

import numpy as np

from jaisp.embedding.picture import image_rgb


def test_sources_of_equal_flux_are_grey_in_bands_of_unequal_depth():
    rng = np.random.default_rng(2)
    sigma = np.array([1.0, 2.0, 3.0])
    y, x = np.indices((60, 60))
    source = 60 * np.exp(-((x - 30) ** 2 + (y - 30) ** 2) / 60)
    noise = np.broadcast_to(sigma[:, None, None], (3, 60, 60)).astype(np.float32)
    flux = (source + noise * rng.standard_normal(noise.shape)).astype(np.float32)
    centre = image_rgb(flux, noise)[27:34, 27:34].reshape(-1, 3).mean(axis=0)
    assert centre.min() > 100
    assert np.ptp(centre) < 0.15 * centre.max()


def test_a_band_that_sees_nothing_is_not_blown_up_to_noise():
    rng = np.random.default_rng(3)
    flux = rng.standard_normal((3, 60, 60)).astype(np.float32)
    flux[:2, 20:40, 20:40] += 30
    picture = image_rgb(flux, np.ones_like(flux)).astype(float)
    # Bands come bluest first: the third is red.
    assert picture[20:40, 20:40, 0].mean() < 0.5 * picture[20:40, 20:40, 1].mean()
