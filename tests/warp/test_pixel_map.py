import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.warp.pixel_map import (
    TOLERANCE_ARCSEC,
    given_positions,
    pixel_arcsec,
    pixel_map,
    sky_to_pixel,
)
from tests.warp.images import patch_at, tan_wcs


def exact(output: WCS, pixels: int, tile: WCS) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:pixels, :pixels].astype(float)
    sky = output.pixel_to_world(x, y)
    u, v = tile.world_to_pixel(sky)
    return np.asarray(u), np.asarray(v)


def assert_exact(output: WCS, tile: WCS, pixels: int = 128) -> None:
    found = pixel_map(output, (pixels, pixels), tile)
    u, v = exact(output, pixels, tile)
    x, y, _ = found.values()
    assert np.hypot(x - u, y - v).max() * pixel_arcsec(tile) <= TOLERANCE_ARCSEC
    # Bounds hold every pixel, and not much more.
    for (low, high), axis in zip((found.bounds[:2], found.bounds[2:]), (x, y), strict=True):
        assert low <= axis.min() + 1e-3
        assert high >= axis.max() - 1e-3
        assert high - low < np.ptp(axis) + 0.01 * pixels + 10
    assert found.at(7, 11) == pytest.approx((x[7, 11], y[7, 11]))


def with_sip() -> WCS:
    wcs = tan_wcs(angle=3.0)
    header = wcs.to_header(relax=True)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    for axis in "AB":
        header[f"{axis}_ORDER"] = 3
        header[f"{axis}_2_0"], header[f"{axis}_1_1"], header[f"{axis}_0_3"] = 3e-6, -2e-6, 4e-9
    return WCS(header)


def with_tpv() -> WCS:
    header = tan_wcs(projection="TPV", angle=20).to_header()
    for axis in (1, 2):
        for term, value in ((0, 1e-6), (1, 1.0), (2, 2e-5), (4, 3e-2), (7, 1e-1)):
            header[f"PV{axis}_{term}"] = value
    return WCS(header)


def with_zpn() -> WCS:
    header = tan_wcs().to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---ZPN", "DEC--ZPN"
    header["PV2_1"], header["PV2_3"] = 1.0, 42.0  # as in VISTA's detector images
    return WCS(header)


@pytest.mark.parametrize(
    "tile",
    [
        tan_wcs(),
        tan_wcs(projection="SIN", angle=10),
        tan_wcs(projection="STG"),
        tan_wcs(angle=45),
        tan_wcs(angle=90),
        tan_wcs(angle=180),
        tan_wcs(angle=30, flipped=True),
        with_sip(),
        with_tpv(),
        with_zpn(),
    ],
    ids=["tan", "sin", "stg", "45", "90", "180", "flipped", "sip", "tpv", "zpn"],
)
def test_map_is_exact_to_a_milliarcsecond(tile):
    assert_exact(patch_at(150.0, 2.0), tile)


@pytest.mark.parametrize(
    ("ra", "dec"), [(0.0, 10.0), (359.999, -45.0), (30.0, 89.0), (200.0, -89.0)]
)
def test_map_is_exact_across_ra_zero_and_near_the_poles(ra, dec):
    assert_exact(patch_at(ra, dec), tan_wcs((ra + 0.001) % 360, dec, angle=12))


def test_frames_are_transformed():
    centre = SkyCoord(150.0, 2.0, unit="deg").galactic
    galactic = tan_wcs(centre.l.deg, centre.b.deg)
    galactic.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    galactic.wcs.radesys = ""
    galactic.wcs.set()
    assert_exact(patch_at(150.0, 2.0), galactic)

    fk5 = tan_wcs()
    fk5.wcs.radesys, fk5.wcs.equinox = "FK5", 2000.0
    fk5.wcs.set()
    assert_exact(patch_at(150.0, 2.0), fk5)
    # The frames differ by some 20 mas: taking one for the other would be seen.
    u, _ = sky_to_pixel(fk5, np.array([150.0]), np.array([2.0]))
    v, _ = sky_to_pixel(tan_wcs(), np.array([150.0]), np.array([2.0]))
    assert 0.001 < abs(u - v)[0] * 0.2 < 0.05


@settings(max_examples=25, deadline=None)
@given(
    ra=st.floats(0, 359.99),
    dec=st.floats(-88, 88),
    angle=st.floats(0, 360),
    pixel=st.floats(0.05, 2.0),
    flipped=st.booleans(),
)
def test_any_tangent_tile(ra, dec, angle, pixel, flipped):
    tile = tan_wcs(ra, dec, pixel, angle=angle, flipped=flipped)
    assert_exact(patch_at(ra, dec, pixels=64), tile, pixels=64)


def test_strong_distortion_makes_the_grid_denser():
    header = tan_wcs().to_header(relax=True)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"], header["B_ORDER"] = 5, 5
    header["A_0_5"], header["B_5_0"] = 2e-10, 2e-10
    assert_exact(patch_at(150.0, 2.0), WCS(header))


def test_area_is_the_jacobian():
    found = pixel_map(patch_at(150.0, 2.0, grid=0.1), (128, 128), tan_wcs(angle=33))
    np.testing.assert_allclose(found.values()[2], 0.25, rtol=1e-6)


def test_area_agrees_with_finite_differences_of_a_distorted_map():
    x, y, area = pixel_map(patch_at(150.0, 2.0), (128, 128), with_sip()).values()
    u_y, u_x = np.gradient(x)
    v_y, v_x = np.gradient(y)
    expected = np.abs(u_x * v_y - u_y * v_x)[2:-2, 2:-2]
    np.testing.assert_allclose(area[2:-2, 2:-2], expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(130, 96), (57, 201), (33, 33)])
def test_patches_of_any_size_are_covered_by_pieces(shape):
    output, tile = patch_at(150.0, 2.0), with_sip()
    found = pixel_map(output, shape, tile)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    u, v = tile.world_to_pixel(output.pixel_to_world(x, y))
    assert found.starts[0] == 0
    assert found.starts[-1] == shape[1]
    assert np.hypot(found.values()[0] - u, found.values()[1] - v).max() * 0.2 <= TOLERANCE_ARCSEC


def test_a_given_map_is_kept_pixel_by_pixel():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(3, 5, 7))
    found = given_positions(*given)
    np.testing.assert_array_equal(np.array(found.values()), given)
    assert found.bounds == (given[0].min(), given[0].max(), given[1].min(), given[1].max())


def test_the_far_side_of_the_sky_is_nowhere():
    # A tangent plane shows the antipode upside down; it is not the tile's sky.
    found = pixel_map(patch_at(330.0, -2.0), (16, 16), tan_wcs(150.0, 2.0))
    assert np.isnan(found.values()[0]).all()
    assert not found.reaches((200, 200))
