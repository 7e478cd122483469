import pytest

from jaisp.simulate.profiles import half_light_radius, sersic


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_half_of_a_sersic_profile_lies_within_its_half_light_radius(index):
    profile = sersic(index)
    assert profile.weight.sum() == pytest.approx(1.0)
    assert (profile.weight > 0).all()
    radius = half_light_radius(profile.weight[None], profile.variance[None])
    assert radius[0] == pytest.approx(1.0, abs=0.01)
