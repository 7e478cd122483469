import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from jaisp.store.layout import Flag
from jaisp.warp.correlation import NoiseCorrelation
from jaisp.warp.overlap import Planes, combine
from jaisp.warp.pixel_map import pixel_map, sky_to_pixel
from jaisp.warp.planes import warp_tile
from jaisp.warp.sky_noise import background_noise
from tests.warp.images import gaussians, lanczos, open_tile, patch_at, tan_wcs, write_tile

PIXELS, GRID = 128, 0.2


def warped(tile, kernel="lanczos3", output=None):
    reader = open_tile(tile)
    output = output or patch_at(150.0, 2.0, GRID, PIXELS)
    positions = pixel_map(output, (PIXELS, PIXELS), reader.wcs)
    return warp_tile(reader, output, positions, kernel)


@pytest.mark.parametrize("kernel", ["lanczos3", "lanczos5", "bicubic", "exact"])
@pytest.mark.parametrize(
    ("pixel", "angle", "error"), [(0.2, 3.0, 2e-4), (0.19, 45.0, 5e-4), (0.25, 180.0, 5e-4)]
)
def test_total_flux_in_njy(tmp_path, kernel, pixel, angle, error):
    wcs = tan_wcs(pixel=pixel, size=300, angle=angle)
    rng = np.random.default_rng(0)
    x, y = (150 + rng.uniform(-8, 8, 12) / pixel for _ in range(2))
    image = gaussians((300, 300), x, y, 0.9 / pixel, 1000.0)
    tile = write_tile(
        tmp_path / "t.fits", image.astype(np.float32), wcs, np.ones((300, 300)), zeropoint=26.4
    )
    planes = warped(tile, kernel)
    assert not planes.flags.any()
    assert planes.flux.sum() == pytest.approx(12 * 1000 * 100, rel=error)  # five magnitudes


def test_noise_is_the_tiles_own_in_units_of_the_output(tmp_path):
    wcs = tan_wcs(pixel=0.4, angle=20)
    noise = np.full((200, 200), 3.0, np.float32)
    planes = warped(write_tile(tmp_path / "t.fits", np.zeros_like(noise), wcs, noise))
    np.testing.assert_allclose(planes.noise, 3.0 * 0.25, rtol=1e-5)


def test_uncalibrated_fluxes_keep_their_units(tmp_path):
    image = np.full((200, 200), 5.0, np.float32)
    tile = write_tile(tmp_path / "t.fits", image, tan_wcs(pixel=0.4), image, zeropoint=None)
    np.testing.assert_allclose(warped(tile).flux, 5.0 / 4, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["lanczos3", "lanczos5", "bicubic", "exact"])
def test_a_missing_pixel_never_becomes_a_finite_zero(tmp_path, kernel):
    image = np.full((200, 200), 50.0, np.float32)
    noise = np.ones_like(image)
    mask = np.zeros(image.shape, np.uint8)
    rng = np.random.default_rng(1)
    places = rng.integers(40, 160, (3, 20, 2))
    image[tuple(places[0].T)] = np.nan
    noise[tuple(places[1].T)] = 1e16
    mask[tuple(places[2].T)] = 1
    wcs = tan_wcs(angle=10)
    planes = warped(write_tile(tmp_path / "t.fits", image, wcs, noise, mask), kernel)
    known = np.isfinite(planes.flux)
    assert (~known).any()
    np.testing.assert_allclose(planes.flux[known], 50.0, rtol=1e-4)
    unusable = (planes.flags & (Flag.BAD | Flag.EDGE)) != 0
    np.testing.assert_array_equal(unusable, ~known)
    np.testing.assert_array_equal(np.isfinite(planes.noise), known)


def test_a_tile_that_ends_within_the_patch(tmp_path):
    image = np.full((60, 200), 50.0, np.float32)
    planes = warped(write_tile(tmp_path / "t.fits", image, tan_wcs(), np.ones_like(image)))
    known = np.isfinite(planes.flux)
    assert 0 < known.sum() < known.size
    np.testing.assert_allclose(planes.flux[known], 50.0, rtol=1e-5)
    assert ((planes.flags[~known] & Flag.EDGE) != 0).all()
    assert (planes.margin[known] > 0).all()


def test_a_tile_elsewhere_gives_nothing(tmp_path):
    image = np.ones((50, 50), np.float32)
    assert warped(write_tile(tmp_path / "t.fits", image, tan_wcs(151.0, 2.0), image)) is None


def test_overlapping_tiles_combine_without_a_seam(tmp_path):
    """Two tiles of one sky, turned differently: the join leaves no trace beyond the kernel's."""
    output = patch_at(150.0, 2.0, GRID, PIXELS)
    rng = np.random.default_rng(2)
    ra, dec = output.pixel_to_world_values(*rng.uniform(5, PIXELS - 5, (2, 40)))
    planes = []
    for number, (dx, angle) in enumerate(((-0.002, 2.0), (0.002, -5.0))):
        wcs = tan_wcs(150.0 + dx, 2.0, angle=angle, size=150)
        x, y = sky_to_pixel(wcs, ra, dec)
        image = gaussians((150, 150), x, y, 4.0, 1000.0).astype(np.float32)
        planes.append(
            warped(write_tile(tmp_path / f"{number}.fits", image, wcs, np.ones_like(image)))
        )
    together, source = combine(planes)
    inner = np.s_[:, 12:-12]
    assert np.isfinite(together.flux[inner]).all()
    assert {0, 1} <= set(np.unique(source))
    truth = gaussians((PIXELS, PIXELS), *output.world_to_pixel_values(ra, dec), 4.0, 1000.0)
    assert np.abs(together.flux - truth)[inner].max() < 0.01 * truth.max()
    deeper = planes[0].margin > planes[1].margin
    both = np.isfinite(planes[0].flux) & np.isfinite(planes[1].flux)
    np.testing.assert_array_equal((source == 0)[both], deeper[both])


def test_the_valid_one_of_two_tiles_is_taken():
    shape = (4, 4)
    full = np.full(shape, 1.0, np.float32)
    hole = Planes(
        np.where(np.eye(4, dtype=bool), np.float32(np.nan), full),
        full,
        np.where(np.eye(4, dtype=bool), np.uint8(Flag.BAD), np.uint8(0)),
        np.full(shape, 9.0, np.float32),
    )
    shallow = Planes(full * 2, full, np.zeros(shape, np.uint8), np.full(shape, 3.0, np.float32))
    together, source = combine([hole, shallow])
    np.testing.assert_array_equal(together.flux, np.where(np.eye(4) > 0, 2.0, 1.0))
    assert not together.flags.any()
    alone, source = combine([hole])
    assert (alone.flags[np.eye(4) > 0] == Flag.BAD).all()
    assert (source[np.eye(4) > 0] == -1).all()


def test_the_mean_of_overlapping_tiles_is_weighted_by_inverse_variance():
    shape = (3, 3)
    full = np.ones(shape, np.float32)
    first = Planes(full * 10, full * 1, np.zeros(shape, np.uint8), full * 2)
    second = Planes(full * 40, full * 2, np.full(shape, Flag.SATURATED, np.uint8), full * 9)
    second.flux[0, 0] = np.nan
    second.flags[0, 0] = Flag.BAD
    for tiles, better in (([first, second], 0), ([second, first], 1)):
        together, source = combine(tiles, "inverse_variance")
        np.testing.assert_allclose(together.flux.ravel(), [10.0] + [16.0] * 8, rtol=1e-6)
        np.testing.assert_allclose(together.noise.ravel(), [1.0] + [0.8**0.5] * 8, rtol=1e-6)
        assert together.flags.ravel().tolist() == [0] + [Flag.SATURATED] * 8
        assert (source == better).all()
    assert (together.margin == 9).all()


def test_interpolated_pixels_have_no_part_where_a_tile_has_better():
    shape = (2, 2)
    full = np.ones(shape, np.float32)
    flags = np.array([[Flag.INTERPOLATED, 0], [Flag.INTERPOLATED, 0]], np.uint8)
    rough = Planes(full * 99, full * 0.1, flags, full)
    clean = Planes(full * 10, full * 1, np.zeros(shape, np.uint8), full)
    clean.flux[1, 0] = np.nan
    for tiles, number in (([rough, clean], 1), ([clean, rough], 0)):
        together, source = combine(tiles, "inverse_variance")
        assert together.flux[0, 0] == 10
        assert together.flags[0, 0] == 0
        assert source[0, 0] == number
        assert together.flux[1, 0] == 99  # better than nothing
        assert together.flags[1, 0] == Flag.INTERPOLATED
        assert together.flux[0, 1] == pytest.approx((99 * 100 + 10) / 101)


def test_what_a_deeper_tile_holds_is_not_computed_again(tmp_path):
    image = np.full((200, 200), 50.0, np.float32)
    reader = open_tile(write_tile(tmp_path / "t.fits", image, tan_wcs(), np.ones_like(image)))
    output = patch_at(150.0, 2.0, GRID, PIXELS)
    positions = pixel_map(output, (PIXELS, PIXELS), reader.wcs)
    whole = warp_tile(reader, output, positions, "lanczos3")
    deeper = np.where(np.arange(PIXELS) < 40, np.float32(1e6), np.float32(-np.inf))
    held = np.broadcast_to(deeper, (PIXELS, PIXELS)).copy()
    part = warp_tile(reader, output, positions, "lanczos3", held)
    assert np.isnan(part.flux[:, :40]).all()
    np.testing.assert_array_equal(part.flux[:, 40:], whole.flux[:, 40:])
    assert warp_tile(reader, output, positions, "lanczos3", np.full_like(held, 1e6)) is None


def test_source_noise_is_taken_out_of_the_noise_plane():
    rng = np.random.default_rng(3)
    stars = gaussians((256, 256), *rng.uniform(10, 246, (2, 25)), 4.0, 20000.0)
    sky = np.linspace(4.0, 6.0, 256)[None, :] * np.ones((256, 1))
    flux = (stars + rng.normal(0, sky)).astype(np.float32)
    noise = np.sqrt(sky**2 + stars).astype(np.float32)
    cleaned = background_noise(flux, noise, 0.2)
    assert (noise / sky).max() > 3
    np.testing.assert_allclose(cleaned, sky, rtol=0.06)
    far = ~maximum_filter(stars > 1.0, 31)
    assert far.mean() > 0.2
    assert np.mean(cleaned[far] == noise[far]) > 0.99


def test_a_patch_without_sky_gets_its_lowest_noise():
    flux = np.full((64, 64), np.nan, np.float32)
    assert np.isnan(background_noise(flux, flux, 0.2)).all()


def test_noise_correlation_of_white_and_of_resampled_noise():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[20:276, 20:276].astype(float)
    white, resampled = NoiseCorrelation(), NoiseCorrelation()
    for _ in range(12):
        image = rng.normal(0, 2.0, (300, 300)).astype(np.float32)
        flags = np.zeros(image.shape, np.uint8)
        white.add(image, np.full(image.shape, 2.0, np.float32), flags, 0.2)
        # Onto pixels of half the size: as noisy each, per unit sky, yet not independent.
        finer, _ = lanczos(image, flags, 20 + (x - 20) / 2, 20 + (y - 20) / 2, 3)
        noise = np.full(finer.shape, 2.0, np.float32)
        resampled.add(finer, noise, np.zeros(finer.shape, np.uint8), 0.1)
    ratio, counts = white.result()
    np.testing.assert_allclose(ratio, 1.0, atol=0.05)
    assert min(counts) > 1000
    ratio, _ = resampled.result()
    # Twice for an endless aperture; the kernel rounds off a real one's rim.
    assert 1.75 < ratio[1] < 2.0


def test_noise_correlation_of_a_small_field_is_one_and_says_so():
    correlation = NoiseCorrelation()
    flux = np.random.default_rng(5).normal(size=(24, 24)).astype(np.float32)
    correlation.add(flux, np.ones_like(flux), np.zeros(flux.shape, np.uint8), 0.2)
    ratio, counts = correlation.result()
    assert ratio.tolist() == [1.0, 1.0]
    assert max(counts) < 50
