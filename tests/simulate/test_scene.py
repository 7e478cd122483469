import galsim
import numpy as np
import pytest
from astropy.io import fits

from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.frames import Frame
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.profiles import BULGE, DISC, EDGE
from jaisp.simulate.psf import tile_psf
from jaisp.simulate.scene import BULGE_KIND, DISC_KIND, Sources, draw_scene

from .reference import FILTERS, galsim_psf, psf_of

SIDE = 121


def by_galsim(light, pixel, x, y):
    offset = (x - SIDE // 2, y - SIDE // 2)
    image = galsim.ImageF(SIDE, SIDE, scale=pixel)
    return light.drawImage(image, offset=offset, method="auto").array


def drawn(psf, sources):
    image = np.zeros((SIDE, SIDE), np.float32)
    draw_scene(image, psf, sources)
    return image


@pytest.mark.parametrize(("instrument", "band"), FILTERS)
def test_a_star_and_its_stamp_are_what_galsim_draws(instrument, band):
    psf, x, y = psf_of(instrument, band, SIDE), 60.3, 59.8
    truth = by_galsim(galsim_psf(psf, x, y), psf.pixel_arcsec, x, y)
    image = drawn(psf, Sources.points(np.array([[x, y]]), np.ones(1)))
    inner = np.s_[40:81, 40:81]
    assert np.abs(image - truth)[inner].max() < 3e-3 * truth.max()
    stamp = psf.stamp(x, y, 20)
    assert np.abs(image[inner] - stamp).max() < 3e-4 * truth.max()


@pytest.mark.parametrize(("instrument", "band"), FILTERS)
@pytest.mark.parametrize(
    ("kind", "radius"), [(DISC_KIND, 0.12), (DISC_KIND, 1.2), (BULGE_KIND, 0.06), (BULGE_KIND, 0.7)]
)
def test_a_galaxy_is_what_galsim_draws(instrument, band, kind, radius):
    psf, x, y = psf_of(instrument, band, SIDE), 60.3, 59.8
    index = DISC if kind == DISC_KIND else BULGE
    shear = galsim.Shear(g1=0.3, g2=-0.2)
    light = galsim.Sersic(index, half_light_radius=radius, trunc=EDGE * radius).shear(shear)
    light = galsim.Convolve(light, galsim_psf(psf, x, y))
    truth = by_galsim(light, psf.pixel_arcsec, x, y)
    axes = shear.getMatrix() * radius / psf.pixel_arcsec
    shape = axes @ axes.T
    covariance = np.array([[shape[0, 0], shape[0, 1], shape[1, 1]]])
    image = drawn(psf, Sources(np.array([[x, y]]), np.ones(1), covariance, np.array([kind])))
    assert np.abs(image - truth).max() < 3e-3 * truth.max()
    # GalSim folds the far wings of an Airy pattern into its FFT.
    assert image.sum() == pytest.approx(truth.sum(), abs=2e-3 if psf.optics.beta else 8e-3)


def test_a_scene_is_the_sum_of_its_sources_whatever_squares_they_lie_in():
    psf = psf_of(RUBIN, "i", 600)
    rng = np.random.default_rng(1)
    count = 40
    position = rng.uniform(-20, 620, (count, 2))
    kind = rng.integers(0, 3, count)
    covariance = np.array([9.0, 2.0, 4.0]) * rng.uniform(0.01, 4.0, (count, 1))
    sources = Sources(position, rng.uniform(1.0, 1e3, count), covariance, kind)
    together, apart = np.zeros((2, 600, 600), np.float32)
    draw_scene(together, psf, sources)
    for n in range(count):
        draw_scene(apart, psf, sources[np.array([n])])
    np.testing.assert_allclose(together, apart, atol=1e-3 * psf.noise + 1e-6 * together.max())


@pytest.mark.parametrize("magnitude", [15.0, 18.0])
@pytest.mark.parametrize(("instrument", "band"), [(RUBIN, "r"), (EUCLID_Q1, "VIS")])
def test_a_bright_star_has_wings_to_where_the_noise_hides_them(instrument, band, magnitude):
    simulate, side = SimulateConfig(), 1024
    tile = Frame("00-00-00", fits.Header(), (side, side), False, 1.0)
    psf = tile_psf(simulate, "rubin", instrument, band, tile)
    image = np.zeros((side, side), np.float32)
    flux = 10 ** (0.4 * (31.4 - magnitude))
    place = np.array([[side / 2 + 0.2, side / 2 - 0.3]])
    draw_scene(image, psf, Sources.points(place, np.array([flux])))
    y, x = np.indices(image.shape)
    radius = np.hypot(x - place[0, 0], y - place[0, 1])
    dark = radius[image == 0]
    edge = dark.min() if len(dark) else radius.max()
    ring = np.abs(radius - 0.95 * edge) < 2
    assert image[ring].mean() < 0.05 * psf.noise
    assert image[ring].mean() > 0.0


def test_no_sources_are_no_light():
    image = np.zeros((50, 50), np.float32)
    draw_scene(image, psf_of(RUBIN, "i", 50), Sources.points(np.empty((0, 2)), np.empty(0)))
    assert not image.any()
