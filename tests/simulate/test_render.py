import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.simulate.profiles import POINT, moffat, sersic
from jaisp.simulate.render import render

OPTICS = {"rubin": (0.73, 3.0, 0.2), "VIS": (0.16, 2.8, 0.1), "NISP": (0.44, 2.8, 0.3)}
SIDE = 121


def drawn(profile, psf, pixel, shape=(0.0, 0.0, 0.0), x=60.3, y=59.8):
    image = np.zeros((SIDE, SIDE), np.float32)
    zero = np.zeros(1, int)
    where, covariance = np.array([[x, y]]), np.array([shape])
    render(image, where, np.ones(1), covariance, zero, [profile], psf.scaled(1 / pixel), 0.0)
    return image


def by_galsim(light, pixel):
    return light.drawImage(galsim.ImageF(SIDE, SIDE, scale=pixel), offset=(0.3, -0.2)).array


@pytest.mark.parametrize("optics", OPTICS)
def test_a_star_is_what_galsim_draws(optics):
    fwhm, beta, pixel = OPTICS[optics]
    truth = by_galsim(galsim.Moffat(beta=beta, fwhm=fwhm), pixel)
    image = drawn(POINT, moffat(fwhm, beta), pixel)
    assert np.abs(image - truth).max() < 4e-3 * truth.max()
    assert image.sum() == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("optics", OPTICS)
@pytest.mark.parametrize(("index", "radius"), [(1, 0.25), (1, 1.5), (4, 0.1), (4, 0.8)])
def test_a_galaxy_is_what_galsim_draws(optics, index, radius):
    fwhm, beta, pixel = OPTICS[optics]
    shear = galsim.Shear(g1=0.3, g2=-0.2)
    light = galsim.Sersic(index, half_light_radius=radius, trunc=10 * radius).shear(shear)
    truth = by_galsim(galsim.Convolve(light, galsim.Moffat(beta=beta, fwhm=fwhm)), pixel)
    axes = shear.getMatrix() * radius / pixel
    shape = axes @ axes.T
    shape = (shape[0, 0], shape[0, 1], shape[1, 1])
    image = drawn(sersic(float(index)), moffat(fwhm, beta), pixel, shape)
    assert np.abs(image - truth).max() < 4e-3 * truth.max()
    assert image.sum() == pytest.approx(truth.sum(), abs=4e-3)


@settings(max_examples=20, deadline=None)
@given(x=st.floats(50, 70), y=st.floats(50, 70), fwhm=st.floats(0.3, 1.0))
def test_light_keeps_its_flux_and_place_between_pixels(x, y, fwhm):
    image = drawn(POINT, moffat(fwhm, 6.0), 0.2, x=x, y=y).astype(float)
    rows, columns = np.indices(image.shape)
    assert image.sum() == pytest.approx(1.0, abs=1e-3)
    assert (image * columns).sum() / image.sum() == pytest.approx(x, abs=2e-3)
    assert (image * rows).sum() / image.sum() == pytest.approx(y, abs=2e-3)


def test_sources_off_the_image_leave_only_their_wings():
    psf = moffat(0.7, 3.0)
    assert drawn(POINT, psf, 0.2, x=-500.0).sum() == 0.0
    edge = drawn(POINT, psf, 0.2, x=-0.5, y=60.0).sum()
    assert edge == pytest.approx(0.5, abs=1e-2)


def test_wings_are_cut_below_the_level_only():
    psf, zero = moffat(0.7, 3.0).scaled(5.0), np.zeros(1, int)
    where, shape = np.array([[60.0, 60.0]]), np.zeros((1, 3))
    whole, cut = np.zeros((2, SIDE, SIDE), np.float32)
    render(whole, where, np.full(1, 100.0), shape, zero, [POINT], psf, 0.0)
    render(cut, where, np.full(1, 100.0), shape, zero, [POINT], psf, 1e-3)
    assert 0 < np.abs(whole - cut).max() < len(psf.weight) * 1e-3
