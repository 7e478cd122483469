import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.config.geometry import Region
from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.frames import frames_of
from jaisp.simulate.instruments import EUCLID_Q1, INSTRUMENTS, RUBIN
from jaisp.simulate.psf import add_points, optics_of, tile_psf
from jaisp.simulate.transfer import moffat_scale

from .fields import windowed
from .reference import FILTERS, galsim_psf, psf_of

WIDE = Region(ra=10.0, dec=-20.0, width_arcmin=4.0, height_arcmin=4.0)


@pytest.mark.parametrize(("instrument", "band"), FILTERS)
def test_a_stamp_holds_its_light(instrument, band):
    psf = psf_of(instrument, band, 300)
    # What is missing are the wings: one or two per cent of an Airy pattern lie beyond 5 arcsec.
    half = round(5.0 / psf.pixel_arcsec)
    assert psf.stamp(150.2, 149.7, half).sum() == pytest.approx(1.0, abs=0.025)
    assert psf.stamp(150.2, 149.7, 5 * half).sum() == pytest.approx(1.0, abs=5e-3)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FILTERS), st.floats(5, 395), st.floats(5, 395), st.integers(1, 5))
def test_the_centroid_of_a_stamp_is_where_it_was_asked_for(chosen, x, y, seed):
    psf = psf_of(*chosen, 400, seed)
    half = 20
    offset = x - np.rint(x), y - np.rint(y)
    width = 2.0 * psf.optics.fwhm_arcsec / psf.pixel_arcsec
    found = windowed(psf.stamp(x, y, half).astype(float), *(half + np.array(offset)), width)
    error = np.array(found) - half - offset
    # An undersampled image's window sees other parts of the PSF at other places: below 2 mas.
    limit = 0.2 if psf.pixel_arcsec < 0.25 else 2.0
    assert np.abs(error).max() * psf.pixel_arcsec * 1e3 < limit


@pytest.mark.parametrize(("instrument", "band"), [FILTERS[1], FILTERS[2]])
def test_the_psf_is_as_wide_as_it_says(instrument, band):
    psf = psf_of(instrument, band, 400)
    nominal = instrument.bands[band].fwhm_arcsec
    assert psf.fwhm_arcsec(100.0, 300.0) == pytest.approx(nominal, rel=0.12)
    assert galsim_psf(psf, 100.0, 300.0).calculateFWHM() == pytest.approx(
        psf.fwhm_arcsec(100.0, 300.0), rel=0.01
    )


def test_a_sharp_telescope_s_gaussian_stays_one():
    for seed in range(20):
        psf = psf_of(INSTRUMENTS["roman"], "F106", 2000, seed)
        nominal = (psf.optics.fwhm_arcsec / 2.3548) ** 2
        for place in np.ndindex(*psf.blocks):
            size, e1, e2 = psf.parameters(*place)
            least = psf.optics.blur**2 + nominal * (size**2 - 1 - 2 * np.hypot(e1, e2))
            assert least > 0.0


def test_size_and_ellipticity_vary_smoothly_over_a_tile():
    sizes, shapes = [], []
    for seed in range(30):
        simulate = SimulateConfig(seed=seed, tiles_per_side=1)
        frame = next(frames_of(simulate, "rubin", RUBIN, 0, WIDE))
        psf = tile_psf(simulate, "rubin", RUBIN, "r", frame)
        rows, columns = psf.blocks
        found = np.array([[psf.parameters(i, j) for j in range(columns)] for i in range(rows)])
        assert np.abs(np.diff(found, axis=0)).max() < 0.05
        sizes.append(found[..., 0])
        shapes.append(np.hypot(found[..., 1], found[..., 2]))
    assert 0.01 < np.std(sizes) < 0.05
    assert np.max(shapes) <= 0.0501
    assert np.median(shapes) > 0.01


def test_worse_seeing_widens_the_psf_on_the_ground_only():
    better, worse = SimulateConfig(tiles_per_side=1), SimulateConfig(tiles_per_side=1, seeing=1.5)
    for instrument, band, ratio in ((RUBIN, "r", 1.5), (EUCLID_Q1, "VIS", 1.0)):
        frame = next(frames_of(better, "s", instrument, 0, WIDE))
        a, b = (tile_psf(s, "s", instrument, band, frame) for s in (better, worse))
        assert b.fwhm_arcsec(50.0, 60.0) == pytest.approx(ratio * a.fwhm_arcsec(50.0, 60.0))
        assert a.noise == b.noise


@pytest.mark.parametrize(("instrument", "band"), FILTERS)
def test_points_added_to_a_tile_are_its_stamps(instrument, band):
    psf = psf_of(instrument, band, 200)
    factor = psf.factor
    image = np.zeros((200 * factor, 200 * factor), np.float32)
    x, y = factor * np.array([60.3, 140.8]), factor * np.array([70.6, 50.1])
    flux = np.array([1e4, -2e3])
    add_points(image, psf, x, y, flux)
    if factor == 1:
        for n in range(2):
            row, column = round(y[n]), round(x[n])
            cut = image[row - 15 : row + 16, column - 15 : column + 16]
            np.testing.assert_allclose(
                cut, flux[n] * psf.stamp(x[n], y[n], 15), atol=3e-4 * np.abs(cut).max()
            )
    width = 1.5 * psf.optics.fwhm_arcsec * factor / psf.pixel_arcsec
    for n in range(2):
        found = windowed(image, float(x[n]), float(y[n]), width)
        error = np.hypot(found[0] - x[n], found[1] - y[n]) * psf.pixel_arcsec / factor * 1e3
        assert error < (0.2 if factor == 1 else 4.0)
    assert image.sum() == pytest.approx(flux.sum(), rel=0.03)


def test_nothing_changes_between_two_makings():
    for instrument, band in FILTERS:
        a, b = (psf_of(instrument, band, 300, seed=4).stamp(20.2, 30.3, 9) for _ in range(2))
        np.testing.assert_array_equal(a, b)
        other = psf_of(instrument, band, 300, seed=5).stamp(20.2, 30.3, 9)
        assert np.abs(other - a).max() > 1e-4 * a.max()


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_instrument_has_depths_and_psfs_that_make_sense(name):
    instrument = INSTRUMENTS[name]
    for band in instrument.bands:
        psf = psf_of(instrument, band, 200)
        optics = optics_of(instrument, band)
        noise = psf.noise * 1e4  # the exposure of psf_of
        depth = 31.4 - 2.5 * np.log10(5 * noise * np.sqrt(optics.noise_pixels()))
        assert 22.0 < depth < 28.0
        assert 0.02 < optics.peak_share() < 0.6
        assert psf.stamp(100.0, 100.0, 50).max() == pytest.approx(optics.peak_share(), rel=0.25)


def test_wings_reach_to_the_level_that_was_asked_for():
    optics = optics_of(RUBIN, "r")
    reach = optics.wing_reach(np.array([1e6]), 0.1)[0] * 0.2
    scale = moffat_scale(optics.fwhm_arcsec, 3.0)
    level = 1e6 * 0.04 * 2 / (np.pi * scale**2) * (1 + (reach / scale) ** 2) ** -3
    assert level == pytest.approx(0.1, rel=0.05)
