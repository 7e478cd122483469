"""Windows leave no seam, and pictures and grids meet the sky where the WCS says."""

import numpy as np
import pytest
from astropy.wcs import WCS

from jaisp.embedding.mosaic import Mosaic, Planes, covered_squares, signal_to_noise, squares
from jaisp.embedding.windows import embed_rows, margin_tokens
from jaisp.sky import plane_radec
from jaisp.store.reader import open_store


@pytest.fixture
def store(published):
    return open_store(published.results / "patches.zarr")


def whole(model, mosaic, window):
    rows = embed_rows(
        model,
        mosaic.read,
        mosaic.shape,
        survey=mosaic.survey,
        bands=mosaic.bands,
        window=window,
    )
    return np.concatenate([strip for _, strip in rows], axis=1)


@pytest.mark.parametrize("survey", ["rubin", "euclid"])
def test_two_ways_of_windowing_agree(store, model, survey):
    mosaic = Mosaic(store, "field", survey)
    one = whole(model, mosaic, window=64)
    for window in (7, 8, 13):
        other = whole(model, mosaic, window)
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert np.isfinite(one).mean() > 0.85


def test_a_margin_of_the_receptive_field_is_needed(store, model, monkeypatch):
    mosaic = Mosaic(store, "field", "rubin")
    margin = margin_tokens(model)
    assert (margin - 1) * 1.6 < model.receptive_field_arcsec <= margin * 1.6 + 1e-6
    right = whole(model, mosaic, window=8)
    monkeypatch.setattr(model, "receptive_field_arcsec", 0.0)
    torn = whole(model, mosaic, window=8)
    assert np.nanmax(np.abs(right - torn)) > 1e-3


def test_the_mosaic_is_its_patches(store):
    mosaic = Mosaic(store, "field", "rubin")
    n, side = mosaic.pixels_per_token, 8
    planes = mosaic.read(0, 0, *mosaic.shape)
    for patch in store:
        y = round((patch.y - mosaic.y0) / mosaic.token_arcsec - side / 2) * n
        x = round((patch.x - mosaic.x0) / mosaic.token_arcsec - side / 2) * n
        view = patch["rubin"]
        np.testing.assert_array_equal(planes.flux[:, y : y + side * n, x : x + side * n], view.flux)
        own = view.wcs.pixel_to_world_values(0, 0)
        here = mosaic.wcs(mosaic.grid_arcsec).pixel_to_world_values(x, y)
        np.testing.assert_allclose(own, here, atol=1e-10)
    outside = mosaic.read(-3, -2, 3, 2)
    assert np.isnan(outside.flux).all()
    assert not outside.valid.any()


def test_the_token_grid_points_at_the_sky(store):
    mosaic = Mosaic(store, "field", "euclid")
    wcs = WCS(mosaic.wcs(mosaic.token_arcsec).to_header())
    cell = store.cell("field")
    x = np.array(mosaic.x0 + 2.5 * mosaic.token_arcsec)
    y = np.array(mosaic.y0 + 4.5 * mosaic.token_arcsec)
    np.testing.assert_allclose(wcs.pixel_to_world_values(2, 4), plane_radec(cell, x, y))


def test_uncovered_sky_has_no_tokens(store, model):
    mosaic = Mosaic(store, "field", "euclid")
    tokens = whole(model, mosaic, window=32)
    missing = np.isnan(tokens).all(axis=0)
    assert missing.sum() == 64  # the patch that Euclid lacks
    assert missing[-8:, -8:].all()


def test_squares_keep_their_pixels():
    image = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    cut = squares(image, 2)
    assert cut.shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(cut[0, 1, 2], [16, 17, 22, 23])


def test_signal_to_noise_of_a_known_square():
    planes = Planes.missing(2, 4, 4)
    planes.flux[0], planes.noise[0], planes.mask[0] = 3.0, 2.0, 0
    ratio = signal_to_noise(planes, 4, np.array([1.5, 1.0]))
    np.testing.assert_allclose(ratio, [[16 * 3 / (4 * 2) / 1.5]])
    assert covered_squares(planes, 4).all()
