import numpy as np

from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.spectra import calzetti, galaxy_colours, star_colours

BANDS = [*RUBIN.bands.values(), *EUCLID_Q1.bands.values()]
NAMES = [*RUBIN.bands, *EUCLID_Q1.bands]


def one(value):
    return np.array([float(value)])


def test_ellipticals_are_redder_than_irregulars_and_more_so_at_higher_redshift():
    def colour(template, redshift):
        flux = galaxy_colours(BANDS, one(template), one(redshift), one(0.0))[0]
        return -2.5 * np.log10(flux[NAMES.index("g")] / flux[NAMES.index("i")])

    assert 0.9 < colour(0, 0.1) < 1.6  # red sequence at z = 0.1: g - i about 1.2
    assert colour(3, 0.1) < 0.6
    assert colour(0, 0.6) > colour(0, 0.1) + 1.0


def test_the_lyman_break_takes_the_u_band_away():
    flux = galaxy_colours(BANDS, one(3), one(4.0), one(0.0))[0]
    assert flux[NAMES.index("u")] < 1e-3 * flux[NAMES.index("r")]


def test_dust_reddens():
    clear, dusty = (galaxy_colours(BANDS, one(2), one(0.5), one(e))[0] for e in (0.0, 0.3))
    u, h = NAMES.index("u"), NAMES.index("H")
    assert dusty[u] < clear[u]
    assert dusty[h] > clear[h]
    np.testing.assert_allclose(calzetti(one(0.55)), 4.05, rtol=0.02)  # R_V


def test_hot_stars_are_bluer():
    flux = star_colours(BANDS, np.array([3200.0, 6500.0]))
    ratio = flux[:, NAMES.index("g")] / flux[:, NAMES.index("z")]
    assert ratio[0] < 0.4 < ratio[1]
    assert (flux > 0).all()
