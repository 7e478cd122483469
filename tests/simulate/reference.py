"""The simulated PSFs as GalSim makes them."""

from functools import cache

import galsim
import numpy as np
from astropy.io import fits

from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.frames import Frame
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.psf import tile_psf

FILTERS = [(RUBIN, "u"), (RUBIN, "i"), (EUCLID_Q1, "VIS"), (EUCLID_Q1, "Y"), (EUCLID_Q1, "H")]


def psf_of(instrument, band, side, seed=1):
    """The PSF of a square tile of so many native pixels, with next to no noise."""
    simulate = SimulateConfig(exposure=1e8, seed=seed)
    side *= instrument.bands[band].native_pixels
    tile = Frame("00-00-00", fits.Header(), (side, side), False, 1.0)
    return tile_psf(simulate, "rubin", instrument, band, tile)


def galsim_psf(psf, x, y):
    """The same PSF as GalSim makes it, in native pixels."""
    optics = psf.optics
    size, e1, e2 = psf.parameters(*(int(n[0]) for n in psf.block_of(np.array([x]), np.array([y]))))
    if optics.telescope is None:
        shape = galsim.Shear(g1=e1, g2=e2)
        return galsim.Moffat(optics.beta, fwhm=size * optics.fwhm_arcsec).shear(shape)
    variance = (optics.fwhm_arcsec / 2.3548) ** 2
    round_ = optics.blur**2 + variance * (size**2 - 1)
    stretch = 2 * variance / round_  # small ellipticities of a Gaussian add to its variances
    e = np.hypot(e1, e2) * stretch
    ratio = np.sqrt((1 - e) / (1 + e))
    shape = galsim.Shear(q=ratio, beta=0.5 * np.arctan2(e2, e1) * galsim.radians)
    sigma = np.sqrt(round_) * (1 - e**2) ** 0.25
    return galsim.Convolve(
        pattern(optics.telescope, optics.edges), galsim.Gaussian(sigma=sigma).shear(shape)
    )


@cache
def pattern(telescope, edges):
    """Light of seven wavelengths behind a pupil with struts."""
    step = (edges[1] - edges[0]) / 7
    return (
        galsim.Sum(
            [
                galsim.OpticalPSF(
                    lam=edges[0] + step * (n + 0.5),
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
        )
        / 7
    )
