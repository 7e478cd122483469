import galsim
import numpy as np
import pytest

from jaisp.simulate.instruments import EUCLID, ROMAN_TELESCOPE
from jaisp.simulate.transfer import TABLE_STEP, Telescope, moffat_table, telescope_transfer

BARE = Telescope(diameter=1.2, obscuration=0.36, struts=0, strut_width=0.0)


@pytest.mark.parametrize("beta", [2.5, 3.0, 4.765])
def test_a_moffat_profile_s_transform_is_galsim_s(beta):
    profile = galsim.Moffat(beta=beta, scale_radius=1.0)
    for k in (0, 20, 100, 300):
        expected = profile.kValue(2 * np.pi * k * TABLE_STEP, 0.0).real
        assert moffat_table(beta)[k] == pytest.approx(expected, abs=2e-5)


def test_a_bare_telescope_s_transform_is_an_airy_pattern_s():
    frequency = np.linspace(0.0, 9.0, 40)
    found = telescope_transfer(BARE, (699.99, 700.01), np.zeros(1), frequency)[0]
    airy = galsim.Airy(lam=700.0, diam=1.2, obscuration=0.36, scale_unit=galsim.arcsec)
    expected = [airy.kValue(2 * np.pi * f, 0.0).real for f in frequency]
    np.testing.assert_allclose(found, expected, atol=4e-4)


@pytest.mark.parametrize("telescope", [BARE, EUCLID, ROMAN_TELESCOPE])
def test_no_light_is_lost_and_none_passes_beyond_the_mirror_s_resolution(telescope):
    frequency = np.linspace(-20.0, 20.0, 81)
    found = telescope_transfer(telescope, (700.0, 800.0), frequency, frequency)
    assert found[40, 40] == pytest.approx(1.0)
    assert found.max() == found[40, 40]
    limit = telescope.diameter / 700e-9 * np.pi / 180 / 3600
    assert not found[np.hypot(*np.meshgrid(frequency, frequency)) > 1.01 * limit].any()


def test_struts_make_spikes_across_them():
    """Three vanes, one along +y: six spikes, one along +x."""
    frequency = np.arange(-160, 161) / 20.0
    seen = telescope_transfer(EUCLID, (690.0, 710.0), frequency, frequency)

    def light(angle):
        radius = np.linspace(3.0, 6.0, 60)
        x, y = radius * np.cos(angle), radius * np.sin(angle)
        waves = [np.exp(2j * np.pi * np.outer(p, frequency)) for p in (y, x)]
        return float(np.einsum("ni,ij,nj->n", waves[0], seen, waves[1]).real.mean())

    along = np.array([light(np.radians(a)) for a in (0, 60, 120)])
    between = np.array([light(np.radians(a)) for a in (30, 90, 150)])
    assert along.min() > 2.0 * between.max()
