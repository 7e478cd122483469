"""The catalogue of a patch against what was put on the sky."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from jaisp.config import group_hash
from jaisp.evaluate.sources import find_sources, usable
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.store.reader import open_store
from jaisp.store.writer import GroupWriter, PatchPlanes
from tests.evaluate.conftest import SHIFT
from tests.evaluate.skies import FWHM, NOISE, TOKEN, draw_sources, sky_config


@pytest.fixture(scope="module")
def patch(sky):
    return sky[14]


@pytest.fixture(scope="module")
def catalogue(sky, patch):
    return find_sources(
        {survey: patch[survey] for survey in patch.surveys},
        {survey: sky.noise_correlation(patch.cell, survey) for survey in patch.surveys},
    )


@pytest.fixture(scope="module")
def truth(patch):
    """x, y (arcsec from the patch's corner) and flux of isolated sources on the patch."""
    (cell,) = cells(sky_config())
    drawn = draw_sources(cell, 60, 1)
    nearest = cKDTree(drawn[:, :2]).query(drawn[:, :2], k=2)[0][:, 1]
    xy = drawn[:, :2] - cell.centres[patch.row] + cell.patch_arcsec / 2
    kept = (nearest > 5) & (xy > 3).all(axis=1) & (xy < cell.patch_arcsec - 3).all(axis=1)
    return xy[kept], drawn[kept, 2]


def test_positions_and_signal_to_noise(catalogue, truth):
    xy, flux = truth
    assert len(xy) > 5
    distance, match = cKDTree(catalogue.xy).query(xy)
    assert distance.max() < 0.05
    centroids = {name: band_xy[match, 0] for name, band_xy in catalogue.band_xy.items()}
    np.testing.assert_allclose(centroids["sharp"], xy, atol=0.03)
    np.testing.assert_allclose(centroids["wide"], xy + SHIFT, atol=0.03)
    # Of a Gaussian source, an aperture of r = 0.673 FWHM holds 71.5 % of the flux.
    radius = 0.673 * FWHM
    expected = 0.715 * flux / (NOISE * np.sqrt(np.pi) * radius)
    np.testing.assert_allclose(catalogue.band_snr["sharp"][match, 0], expected, rtol=0.1)
    both = np.sqrt((catalogue.band_snr["wide"][match] ** 2).sum(axis=1))
    np.testing.assert_allclose(catalogue.snr["wide"][match], both, rtol=1e-6)


def test_one_source_a_token_and_the_brightest(catalogue):
    kept = catalogue.select(("sharp", "wide"), 5.0, TOKEN)
    tokens = catalogue.tokens(TOKEN)
    assert len(np.unique(tokens[kept], axis=0)) == len(kept)
    weakest = np.minimum(catalogue.snr["sharp"], catalogue.snr["wide"])
    assert (weakest[kept] > 5).all()
    for source in np.flatnonzero(weakest > 5):
        (rival,) = (i for i in kept if (tokens[i] == tokens[source]).all())
        assert weakest[rival] >= weakest[source]


def test_correlated_noise_lowers_the_signal_to_noise(sky, patch, catalogue):
    views = {survey: patch[survey] for survey in patch.surveys}
    doubled = {s: np.full((len(views[s].bands), 2), 2.0, np.float32) for s in views}
    fewer = find_sources(views, doubled)
    match = cKDTree(catalogue.xy).query(fewer.xy)[1]
    ratio = fewer.band_snr["wide"][:, 0] / catalogue.band_snr["wide"][match, 0]
    assert np.median(ratio) == pytest.approx(0.5, rel=0.01)


def test_bands_below_the_sky_do_not_count(catalogue):
    for survey, snr in catalogue.band_snr.items():
        positive = np.where(snr > 0, snr, 0)
        np.testing.assert_allclose(catalogue.snr[survey], np.linalg.norm(positive, axis=1))


def test_pixels_without_noise_flux_or_with_a_flag_are_not_usable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = sky_config(side_arcsec=38.4, test=0.0)
    path = config.results / "patches.zarr" / "field"
    (cell,) = cells(config)
    for name, survey in config.surveys.items():
        pixels = config.patch_pixels(name)
        shape = (len(survey.bands), pixels, pixels)
        flux, noise = np.ones(shape, np.float32), np.ones(shape, np.float32)
        mask = np.zeros(shape, np.uint8)
        flux[:, 0, 0], noise[:, 0, 1] = np.nan, 0
        mask[:, 0, 2:] = 1
        mask[:, 1] = 32
        attributes = {"hash": group_hash(config, name, cell)}
        grid = config.grid(name)[1]
        with GroupWriter(path / name, survey.bands, pixels, 1, grid, attributes=attributes) as out:
            out.write(0, PatchPlanes(flux, noise, mask, np.ones(shape[0], np.float32)))
            out.finish(np.ones((shape[0], 2), np.float32), {})
    publish(config)
    good = usable(open_store(config.results / "patches.zarr")[0]["sharp"])
    assert not good[:, 0].any()
    assert good[:, 1:].all()
