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

FILTERS = [(RUBIN, "u"), (RUBIN, "i"), (EUCLID_Q1, "VIS"), (EUCLID_Q1, "Y"), (EUCLID_Q1, "H")]
SIDE = 121


def psf_of(instrument, band):
    factor = instrument.bands[band].native_pixels
    shape = (SIDE * factor, SIDE * factor)
    tile = Frame("00-00-00", fits.Header(), shape, False, 1.0)
    return tile_psf(SimulateConfig(exposure=1e8), "rubin", instrument, band, tile)


def galsim_psf(psf, x, y):
    """The same PSF as GalSim makes it, in native pixels."""
    optics = psf.optics
    size, e1, e2 = psf.parameters(*(int(n[0]) for n in psf.block_of(np.array([x]), np.array([y]))))
    if optics.telescope is None:
        shape = galsim.Shear(g1=e1, g2=e2)
        return galsim.Moffat(optics.beta, fwhm=size * optics.fwhm_arcsec).shear(shape)
    telescope = optics.telescope
    step = (optics.edges[1] - optics.edges[0]) / 7
    patterns = [
        galsim.OpticalPSF(
            lam=optics.edges[0] + step * (n + 0.5),
            diam=telescope.diameter,
            obscuration=telescope.obscuration,
            nstruts=telescope.struts,
            strut_thick=telescope.strut_width / telescope.diameter,
            scale_unit=galsim.arcsec,
            oversampling=2.0,
            pad_factor=2.0,
        )
        for n in range(7)
    ]
    variance = (optics.fwhm_arcsec / 2.3548) ** 2
    round_ = optics.blur**2 + variance * (size**2 - 1)
    stretch = 2 * variance / round_  # small ellipticities of a Gaussian add to its variances
    e = np.hypot(e1, e2) * stretch
    ratio = np.sqrt((1 - e) / (1 + e))
    shape = galsim.Shear(q=ratio, beta=0.5 * np.arctan2(e2, e1) * galsim.radians)
    sigma = np.sqrt(round_) * (1 - e**2) ** 0.25
    return galsim.Convolve(galsim.Sum(patterns) / 7, galsim.Gaussian(sigma=sigma).shear(shape))


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
    psf, x, y = psf_of(instrument, band), 60.3, 59.8
    truth = by_galsim(galsim_psf(psf, x, y), psf.pixel_arcsec, x, y)
    image = drawn(psf, Sources.points(np.array([[x, y]]), np.ones(1)))
    inner = np.s_[40:81, 40:81]
    print(band, np.abs(image - truth)[inner].max() / truth.max())
    assert np.abs(image - truth)[inner].max() < 3e-3 * truth.max()
    stamp = psf.stamp(x, y, 20)
    assert np.abs(image[inner] - stamp).max() < 3e-4 * truth.max()


@pytest.mark.parametrize(("instrument", "band"), FILTERS)
@pytest.mark.parametrize(
    ("kind", "radius"), [(DISC_KIND, 0.12), (DISC_KIND, 1.2), (BULGE_KIND, 0.06), (BULGE_KIND, 0.7)]
)
def test_a_galaxy_is_what_galsim_draws(instrument, band, kind, radius):
    psf, x, y = psf_of(instrument, band), 60.3, 59.8
    index = DISC if kind == DISC_KIND else BULGE
    shear = galsim.Shear(g1=0.3, g2=-0.2)
    light = galsim.Sersic(index, half_light_radius=radius, trunc=EDGE * radius).shear(shear)
    light = galsim.Convolve(light, galsim_psf(psf, x, y))
    truth = by_galsim(light, psf.pixel_arcsec, x, y)
    axes = shear.getMatrix() * radius / psf.pixel_arcsec
    shape = axes @ axes.T
    covariance = np.array([[shape[0, 0], shape[0, 1], shape[1, 1]]])
    image = drawn(psf, Sources(np.array([[x, y]]), np.ones(1), covariance, np.array([kind])))
    print(band, kind, radius, np.abs(image - truth).max() / truth.max(), image.sum(), truth.sum())
    assert np.abs(image - truth).max() < 3e-3 * truth.max()
    assert image.sum() == pytest.approx(truth.sum(), abs=4e-3)
