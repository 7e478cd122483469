import numpy as np
import pytest

from jaisp.simulate.profiles import half_light_radius, moffat, noise_pixels, peak_share, sersic


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_half_of_a_sersic_profile_lies_within_its_half_light_radius(index):
    profile = sersic(index)
    assert profile.weight.sum() == pytest.approx(1.0)
    assert (profile.weight > 0).all()
    radius = half_light_radius(profile.weight[None], profile.variance[None])
    assert radius[0] == pytest.approx(1.0, abs=0.01)


def test_a_moffat_profile_has_its_width_and_wings():
    profile = moffat(0.7, 3.0)

    def surface(radius: float) -> float:
        gaussians = np.exp(-0.5 * radius**2 / profile.variance) / profile.variance
        return float(profile.weight @ gaussians)

    assert surface(0.35) / surface(0.0) == pytest.approx(0.5, abs=0.005)
    scale = 0.7 / (2 * np.sqrt(2 ** (1 / 3) - 1))
    assert surface(2.0) / surface(0.0) == pytest.approx((1 + (2.0 / scale) ** 2) ** -3, rel=0.06)


def test_a_sharper_psf_takes_up_less_noise_and_fills_its_pixel_more():
    sharp, wide = moffat(0.16, 2.8), moffat(0.32, 2.8)
    assert noise_pixels(sharp, 0.1) < 0.5 * noise_pixels(wide, 0.1)
    assert peak_share(wide, 0.1) < peak_share(sharp, 0.1) < 1.0
