import numpy as np
import pytest

from jaisp.simulate.detector import (
    BAD,
    COSMIC_RAY,
    EDGE,
    SATURATED,
    camera_of,
    expose,
    kill_rim,
    serve,
)
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.psf import optics_of
from jaisp.simulate.seeds import generator


def blank(side=300):
    return np.zeros((side, side), np.float32)


@pytest.mark.parametrize(("instrument", "band"), [(RUBIN, "r"), (EUCLID_Q1, "VIS")])
def test_the_noise_is_what_the_variance_says_and_gives_the_depth(instrument, band):
    camera = camera_of(instrument, band, 1.0)
    exposure = expose(blank(600), camera, instrument, generator(3, "test"))
    clean = exposure.mask == 0
    pull = exposure.science[clean] / np.sqrt(exposure.variance[clean])
    assert np.std(pull) == pytest.approx(1.0, abs=0.01)
    assert np.mean(pull) == pytest.approx(0.0, abs=0.01)
    limit = 5 * camera.noise * np.sqrt(optics_of(instrument, band).noise_pixels())
    assert 31.4 - 2.5 * np.log10(limit) == pytest.approx(instrument.bands[band].depth)


def test_four_times_the_exposure_halves_the_noise():
    short, long = (camera_of(RUBIN, "i", t) for t in (1.0, 4.0))
    assert short.noise == pytest.approx(2 * long.noise)
    assert long.electrons == pytest.approx(4 * short.electrons)


def test_sources_add_noise_of_their_own_to_the_variance_only():
    camera = camera_of(RUBIN, "r", 1.0)
    sky = blank()
    sky[100:200, 100:200] = 0.1 * camera.full
    exposure = expose(sky, camera, RUBIN, generator(4, "test"))
    inside = np.s_[100:200, 100:200]
    extra = exposure.variance[inside] - exposure.background[inside]
    assert extra.mean() == pytest.approx(0.1 * camera.full / camera.electrons, rel=0.1)
    np.testing.assert_array_equal(exposure.variance[:90], exposure.background[:90])


def test_full_pixels_are_flagged_and_bleed():
    camera = camera_of(RUBIN, "r", 1.0)
    sky = blank()
    sky[140:150, 140:150] = 2 * camera.full
    exposure = expose(sky, camera, RUBIN, generator(5, "test"))
    saturated = (exposure.mask & SATURATED) > 0
    assert saturated[140:150, 140:150].all()
    assert saturated[115:140].any(axis=1).all()  # the trail
    assert exposure.science.max() < 1.2 * camera.full
    assert (exposure.science[saturated] == np.float32(camera.full)).all()


def test_defects_stand_out_and_are_flagged():
    camera = camera_of(RUBIN, "r", 1.0)
    exposure = expose(blank(1500), camera, RUBIN, generator(6, "test"))
    for flag in (BAD, COSMIC_RAY):
        flagged = (exposure.mask & flag) > 0
        assert 0 < flagged.mean() < 0.01
        assert np.median(np.abs(exposure.science[flagged])) > 10 * camera.noise
    assert np.abs(exposure.science[exposure.mask == 0]).max() < 7 * camera.noise


def test_resampling_keeps_flux_and_flags_all_that_a_defect_touches():
    camera = camera_of(EUCLID_Q1, "H", 1.0)
    native = expose(blank(126), camera, EUCLID_Q1, generator(7, "test"))
    fine = serve(native, 3)
    assert fine.science.shape == fine.mask.shape == fine.variance.shape == (360, 360)
    clean = fine.mask == 0
    # A kernel takes some of the scatter away, which the variance doesn't know.
    expected = np.sqrt(fine.variance[clean].mean())
    assert 0.85 < np.std(fine.science[clean]) / expected < 0.95
    assert np.abs(fine.science[clean]).max() < 7 * expected
    level = serve(native.__class__(blank(46) + 9, blank(46), blank(46), blank(46).astype("u1")), 3)
    np.testing.assert_allclose(level.science, 1.0, rtol=1e-5)


def test_a_dead_rim_is_nan_and_flagged():
    camera = camera_of(RUBIN, "r", 1.0)
    exposure = expose(blank(100), camera, RUBIN, generator(8, "test"))
    kill_rim(exposure)
    dead = (exposure.mask & EDGE) > 0
    np.testing.assert_array_equal(dead, np.isnan(exposure.science))
    assert dead[:12].all()
    assert not dead[12:-12, 12:-12].any()
