import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.catalogue import draw_catalogue, from_plane, join, truth_table
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.seeds import generator

BANDS = [RUBIN.bands["g"], RUBIN.bands["i"], EUCLID_Q1.bands["H"]]
NAMES = ["rubin_g", "rubin_i", "euclid_q1_H"]
COLUMNS = [f"flux_{name}" for name in NAMES]
CENTRE = SkyCoord(53.13, -28.1, unit="deg")


@pytest.fixture(scope="module")
def sky():
    return draw_catalogue(SimulateConfig(), BANDS, CENTRE, (360.0, 300.0), generator(1, "sky"))


def test_the_sky_is_as_dense_as_asked_and_as_deep_as_that_needs(sky):
    truth = truth_table(sky, NAMES)
    galaxies = truth[truth["type"] != "star"]
    assert len(galaxies) == pytest.approx(130 * 30, rel=0.06)
    assert (truth["type"] == "star").sum() == pytest.approx(3.5 * 30, rel=0.35)
    magnitude = 31.4 - 2.5 * np.log10(galaxies["flux_rubin_i"])
    assert magnitude.max() < 26.6
    assert (magnitude < 24).sum() == pytest.approx(46 * 10**-0.31 * 30, rel=0.15)
    assert {"elliptical", "spiral", "irregular"} == set(galaxies["type"])


def test_sizes_shapes_and_colours_are_a_galaxy_survey_s(sky):
    truth = truth_table(sky, NAMES)
    galaxies = truth[truth["type"] != "star"]
    bright, faint = (galaxies[COLUMNS[1]] > 3e3), (galaxies[COLUMNS[1]] < 200)
    size = galaxies["half_light_radius_arcsec"]
    assert np.median(size[bright]) > 1.5 * np.median(size[faint]) > 0.2
    assert np.hypot(galaxies["e1"], galaxies["e2"]).max() < 0.7
    assert (truth["half_light_radius_arcsec"][truth["type"] == "star"] == 0).all()
    colour = -2.5 * np.log10(galaxies[COLUMNS[0]] / galaxies[COLUMNS[2]])
    assert np.std(colour) > 0.7
    assert np.isfinite(colour).all()


def test_neighbours_are_counted_as_the_sky_has_them(sky):
    truth = truth_table(sky, NAMES)
    place = SkyCoord(truth["ra"], truth["dec"])
    for row in range(0, len(truth), 400):
        near = place[row].separation(place) < 1.5 * u.arcsec
        assert truth["neighbours"][row] == near.sum() - 1
        separation = place[row].separation(place).arcsec
        separation[row] = np.inf
        if separation.min() < 3.0:
            assert truth["partner"][row] == separation.argmin()
            assert truth["partner_separation_arcsec"][row] == pytest.approx(separation.min())
        else:
            assert truth["partner"][row] == -1
    # Random places alone would give 0.26 a source.
    assert truth["neighbours"].mean() > 0.35


@settings(max_examples=30, deadline=None)
@given(
    ra=st.floats(0, 359.9),
    dec=st.floats(-89, 89),
    east=st.floats(-900, 900),
    north=st.floats(-900, 900),
)
def test_the_tangent_plane_is_the_one_of_the_wcs(ra, dec, east, north):
    from astropy.wcs import WCS

    plane = WCS(naxis=2)
    plane.wcs.ctype, plane.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, dec]
    plane.wcs.cdelt = [1 / 3600, 1 / 3600]
    place = from_plane(SkyCoord(ra, dec, unit="deg"), np.array([east]), np.array([north]))
    back = plane.wcs_world2pix(place.ra.deg, place.dec.deg, 1)
    np.testing.assert_allclose(np.ravel(back), [east, north], atol=1e-5)


def test_an_empty_sky_has_a_truth_table():
    simulate = SimulateConfig(galaxies_per_arcmin2=0.0, stars_per_arcmin2=0.0)
    sky = draw_catalogue(simulate, BANDS, CENTRE, (60.0, 60.0), generator(1, "sky"))
    assert len(truth_table(join([sky, sky]), NAMES)) == 0
