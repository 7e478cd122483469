import numpy as np
import pytest

from jaisp.store.layout import Flag
from jaisp.warp.kernel import LANES, lanczos_table, measure_margin, nearest, resample, spread
from jaisp.warp.pixel_map import given_positions
from tests.warp.images import centroid, gaussians, lanczos

GRID = np.mgrid[10:40, 10:40].astype(float)


def clean(shape):
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize("order", [3, 5])
def test_weights_sum_to_one_and_keep_whole_pixels(order):
    table = lanczos_table(order)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=2e-7)
    spare = LANES[2 * order] - 2 * order
    assert table[0].tolist() == [0.0] * (order - 1) + [1.0] + [0.0] * (order + spare)
    assert not table[:, 2 * order :].any()


@pytest.mark.parametrize("order", [3, 5])
def test_no_shift_gives_the_same_pixels(order):
    image = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    y, x = GRID
    flux, flags = lanczos(image, clean(image.shape), x, y, order)
    np.testing.assert_array_equal(flux, image[10:40, 10:40])
    assert not flags.any()


@pytest.mark.parametrize("order", [3, 5])
def test_constant_stays_constant(order):
    image = np.full((50, 50), 7.0, np.float32)
    y, x = GRID + np.random.default_rng(1).uniform(-0.5, 0.5, GRID.shape)
    flux, _ = lanczos(image, clean(image.shape), x, y, order)
    np.testing.assert_allclose(flux, 7.0, rtol=1e-6)


@pytest.mark.parametrize(("order", "centroid_mas", "flux"), [(3, 1.0, 2e-4), (5, 0.15, 2e-4)])
def test_stars_through_a_rotation_of_three_degrees(order, centroid_mas, flux):
    pixel, fwhm, side = 0.2, 0.7, 400
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(np.arange(40, 360, 20), np.arange(40, 360, 20)), -1).reshape(-1, 2)
    star_x, star_y = (grid + rng.uniform(-0.5, 0.5, grid.shape)).T
    image = gaussians((side, side), star_x, star_y, fwhm / pixel).astype(np.float32)
    c, s = np.cos(np.radians(3.0)), np.sin(np.radians(3.0))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    u, v = c * x - s * y + (side - 1) / 2, s * x + c * y + (side - 1) / 2
    result, _ = lanczos(image, clean(image.shape), u, v, order)

    # Where each star should be on the output, and a matched-filter centroid there.
    dx, dy = star_x - (side - 1) / 2, star_y - (side - 1) / 2
    out_x, out_y = c * dx + s * dy + (side - 1) / 2, -s * dx + c * dy + (side - 1) / 2
    errors, fluxes = [], []
    for x0, y0 in zip(out_x, out_y, strict=True):
        if not (25 < x0 < side - 25 and 25 < y0 < side - 25):
            continue
        i, j = round(y0), round(x0)
        stamp = result[i - 9 : i + 10, j - 9 : j + 10].astype(float)
        fluxes.append(stamp.sum())
        errors.append(centroid(stamp, fwhm / pixel) - (x0 - j, y0 - i))
    rms = np.sqrt(np.mean(np.square(errors))) * pixel * 1000
    assert len(errors) > 150
    assert rms <= centroid_mas
    assert abs(np.mean(fluxes) - 1) <= flux


def test_flux_on_a_grid_of_nearly_the_same_pixel():
    """VISTA's 0.339″ onto 0.32″: a kernel that reproduces no slope ripples by 1 % here."""
    ratio, rng = 0.32 / 0.339, np.random.default_rng(3)
    y, x = 100 + ratio * np.mgrid[-90:90, -90:90]
    fluxes = []
    for place in 100 + rng.uniform(-30, 30, (30, 2)):
        image = gaussians((200, 200), place[:1], place[1:], 2.6).astype(np.float32)
        result, _ = lanczos(image, clean(image.shape), x, y, 3)
        fluxes.append(np.sum(result, dtype=float) * ratio**2)
    assert np.std(fluxes) < 1e-3


@pytest.mark.parametrize("order", [3, 5])
def test_a_bad_pixel_never_becomes_a_number(order):
    image = np.full((50, 50), 100.0, np.float32)
    flags = clean(image.shape)
    flags[25, 25] = Flag.BAD
    image[25, 25] = np.nan
    y, x = GRID + 0.3
    flux, found = lanczos(image, flags, x, y, order)
    missing = ~np.isfinite(flux)
    assert missing.any()
    assert missing.sum() <= 12
    assert ((found[missing] & Flag.BAD) != 0).all()
    # What stands beside it is interpolated from the rest, to the same level.
    np.testing.assert_allclose(flux[~missing], 100.0, rtol=1e-5)
    interpolated = (found & Flag.INTERPOLATED) != 0
    assert interpolated.any()
    assert not (interpolated & missing).any()
    away = np.hypot(x - 25, y - 25) > order * 1.5
    assert not found[away].any()


def test_infinite_and_huge_bad_pixels_do_not_leak():
    image = np.zeros((50, 50), np.float32)
    flags = clean(image.shape)
    image[20, 20], image[30, 30], image[25, 15] = np.inf, 1e30, -np.inf
    for place in ((20, 20), (30, 30), (25, 15)):
        flags[place] = Flag.BAD
    y, x = GRID + 0.4
    flux, _ = lanczos(image, flags, x, y, 3)
    assert not flux[np.isfinite(flux)].any()


def test_a_whole_bad_column_is_missing_and_says_so():
    image = np.ones((50, 50), np.float32)
    flags = clean(image.shape)
    image[:, 24:27], flags[:, 24:27] = np.nan, Flag.EDGE
    y, x = GRID + 0.5
    flux, found = lanczos(image, flags, x, y, 3)
    inside = (x >= 23.5) & (x <= 26.5)
    assert np.isnan(flux[inside]).all()
    assert ((found[inside] & Flag.EDGE) != 0).all()


def test_saturation_keeps_the_flux_and_spreads_its_flag():
    image = np.ones((50, 50), np.float32)
    flags = clean(image.shape)
    flags[25, 25] = Flag.SATURATED
    y, x = GRID + 0.25
    flux, found = lanczos(image, flags, x, y, 3)
    np.testing.assert_allclose(flux, 1.0, rtol=1e-6)
    near = np.maximum(abs(x - 25), abs(y - 25)) < 2.9
    assert ((found[near] & Flag.SATURATED) != 0).all()
    assert not found[np.maximum(abs(x - 25), abs(y - 25)) > 4].any()


def test_positions_off_the_image_are_edge():
    image = np.ones((20, 20), np.float32)
    x = np.array([[-5.0, np.nan, 10.0, 30.0, 1e300]])
    flux, found = lanczos(image, clean(image.shape), x, np.full(x.shape, 10.0), 3)
    assert np.isfinite(flux).tolist() == [[False, False, True, False, False]]
    assert found.tolist() == [[8, 8, 0, 8, 8]]


def test_noise_is_linear_between_what_is_known():
    noise = np.ones((20, 20), np.float32)
    noise[9, 9:11], noise[10, 9:11] = (1.0, 3.0), np.nan
    noise[14:16, 14:16] = np.nan
    x = np.array([[9.5, 9.0, 9.5, 9.5, 14.5, np.nan]])
    y = np.array([[9.0, 9.5, 9.5, 9.99, 14.5, 9.0]])
    positions = given_positions(x, y, np.full(x.shape, 2.0))
    image = np.ones_like(noise)
    found = resample(image, noise, clean(noise.shape), positions, order=3, unit=10.0)
    np.testing.assert_allclose(found.noise[0, :4], np.array([2.0, 1.0, 2.0, 2.0]) * 20)
    np.testing.assert_allclose(found.flux[0, :4], 20.0, rtol=1e-6)
    assert np.isnan(found.noise[0, 4:]).all()
    assert np.isnan(found.flux[0, 4:]).all()
    assert found.flags[0].tolist() == [0, 0, 0, 0, Flag.BAD, Flag.EDGE]


def test_margin_is_the_distance_to_the_nearest_edge():
    x = np.array([[100.0, 115.0, -3.0, np.nan]])
    positions = given_positions(x, np.full(x.shape, 212.0), np.ones_like(x))
    assert measure_margin(positions, (400, 130))[0].tolist() == [29.5, 14.5, -2.5, -np.inf]


def test_a_part_of_an_image_and_only_what_is_wanted():
    rng = np.random.default_rng(6)
    image = rng.normal(size=(80, 90)).astype(np.float32)
    y, x = np.mgrid[30:50, 40:60] + rng.uniform(0, 1, (2, 20, 20))
    positions = given_positions(x, y, np.ones_like(x))
    whole = resample(image, np.ones_like(image), clean(image.shape), positions)
    part = image[22:60, 33:70]
    wanted = rng.random(x.shape) < 0.5
    found = resample(
        part, np.ones_like(part), clean(part.shape), positions, origin=(22, 33), wanted=wanted
    )
    np.testing.assert_array_equal(found.flux, np.where(wanted, whole.flux, np.nan))
    np.testing.assert_array_equal(found.flags, np.where(wanted, 0, Flag.EDGE))


@pytest.mark.parametrize("order", [3, 5])
def test_threads_give_the_same_numbers(order):
    rng = np.random.default_rng(5)
    image = rng.normal(size=(120, 120)).astype(np.float32)
    flags = (rng.random(image.shape) < 0.01).astype(np.uint8)
    y, x = np.mgrid[:97, :83] + rng.uniform(0, 8, (2, 97, 83))
    positions = given_positions(x, y, np.ones_like(x))
    one, two = (
        resample(image, np.abs(image), flags, positions, order=order, threads=threads)
        for threads in (1, 3)
    )
    for name in ("flux", "noise", "flags"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_flags_spread_and_are_looked_up():
    flags = clean((9, 9))
    flags[4, 4] = 3
    wide = spread(flags, 2)
    assert (wide[2:7, 2:7] == 3).all()
    assert wide.sum() == 75
    x = np.array([[4.4, -0.6, 8.6, np.nan, -0.4]])
    assert nearest(wide, x, np.full(x.shape, 4.0)).tolist() == [[3, 8, 8, 8, 0]]
