"""Where overlapping tiles meet in a patch: no step, no edge; and which pixels a flag reaches."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from jaisp.store.layout import Flag
from jaisp.warp.overlap import combine
from jaisp.warp.pixel_map import pixel_map, sky_to_pixel
from jaisp.warp.planes import warp_tile
from tests.warp.images import gaussians, open_tile, patch_at, tan_wcs, write_tile

PIXELS, GRID, SIZE = 256, 0.2, 300
# Two tiles, turned differently, that overlap in the middle third of the patch; noise of each.
TILES = ((-0.0028, 4.0, 1.0), (0.0028, -7.0, 1.7))
HALO = 3  # of Lanczos 3: further from a seam, neither tile's kernel crosses it


def sky(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth sky at positions on the patch, in pixels."""
    return 50.0 + 0.05 * x - 0.03 * y + 4.0 * np.sin(x / 40.0) * np.cos(y / 55.0)


def planes_of(folder: Path, stars: bool, noisy: bool, seed: int = 0) -> list:
    """The two tiles' planes on one patch."""
    output = patch_at(150.0, 2.0, GRID, PIXELS)
    rng = np.random.default_rng(seed)
    places = rng.uniform(4, PIXELS - 4, (2, 150))
    planes = []
    for number, (dx, angle, sigma) in enumerate(TILES):
        wcs = tan_wcs(150.0 + dx, 2.0, angle=angle, size=SIZE)
        v, u = np.mgrid[:SIZE, :SIZE].astype(float)
        image = sky(*output.world_to_pixel_values(*wcs.pixel_to_world_values(u, v)))
        if stars:
            x, y = sky_to_pixel(wcs, *output.pixel_to_world_values(*places))
            image += gaussians((SIZE, SIZE), x, y, 4.0, 2000.0)
        if noisy:
            image += rng.normal(0, sigma, image.shape)
        noise = np.full(image.shape, sigma, np.float32)
        path = folder / f"{seed}.{number}.fits"
        reader = open_tile(write_tile(path, image.astype(np.float32), wcs, noise))
        positions = pixel_map(output, (PIXELS,) * 2, reader.wcs)
        planes.append(warp_tile(reader, output, positions, "lanczos3"))
    return planes


def truth(stars: bool) -> np.ndarray:
    """What the patch would show of the noiseless sky."""
    y, x = np.mgrid[:PIXELS, :PIXELS].astype(float)
    places = np.random.default_rng(0).uniform(4, PIXELS - 4, (2, 150))
    image = sky(x, y)
    return image + gaussians(image.shape, *places, 4.0, 2000.0) if stars else image


def seam(together_from: np.ndarray) -> np.ndarray:
    """Pairs of neighbours along a row of which each comes from another set of tiles."""
    return together_from[:, 1:] != together_from[:, :-1]


def origins(planes: list, how: str) -> np.ndarray:
    """Which tiles each pixel is made of, as a number."""
    if how == "margin":
        return combine(planes, "margin")[1].astype(int)
    held = [np.isfinite(p.flux).astype(int) << n for n, p in enumerate(planes)]
    return np.sum(held, axis=0)


@pytest.mark.parametrize("how", ["margin", "inverse_variance"])
def test_a_smooth_sky_shows_no_seam(tmp_path, how):
    planes = planes_of(tmp_path, stars=False, noisy=False)
    together, _ = combine(planes, how)
    assert seam(origins(planes, how)).sum() > PIXELS
    np.testing.assert_allclose(together.flux, truth(False), rtol=1e-4)


@pytest.mark.parametrize("how", ["margin", "inverse_variance"])
def test_stars_are_as_good_at_the_seam_as_elsewhere(tmp_path, how):
    planes = planes_of(tmp_path, stars=True, noisy=False)
    together, _ = combine(planes, how)
    expected = truth(True)
    error = together.flux - expected
    # Every row has the seam.
    near = binary_dilation(np.pad(seam(origins(planes, how)), ((0, 0), (0, 1))), iterations=3)
    assert not together.flags.any()
    at_seam, elsewhere = error[near], error[~near]
    assert min(at_seam.size, elsewhere.size) > 1500
    assert at_seam.std() < 1.2 * elsewhere.std()
    assert abs(at_seam.mean()) < 1e-4 * expected.max()
    assert np.abs(error).max() < 0.01 * expected.max()


@pytest.mark.parametrize("how", ["margin", "inverse_variance"])
def test_a_noisy_sky_steps_at_the_seam_by_its_noise_only(tmp_path, how):
    pulls, levels = [], []
    for seed in range(6):
        planes = planes_of(tmp_path, False, noisy=True, seed=seed)
        together, _ = combine(planes, how)
        residual = together.flux - truth(False)
        # The kernel smooths a little; the noise plane is the tiles' own.
        assert 0.85 < (residual / together.noise).std() < 1.0
        for row, column in np.argwhere(seam(origins(planes, how))):
            # Means of five pixels on either side, beyond the kernels' reach from the seam.
            left = slice(column - HALO - 4, column - HALO + 1)
            right = slice(column + 1 + HALO, column + 6 + HALO)
            if left.start < 0 or right.stop > PIXELS or row % 8:
                continue
            step = residual[row, right].mean() - residual[row, left].mean()
            spread = np.hypot(together.noise[row, left].mean(), together.noise[row, right].mean())
            pulls.append(step / spread * np.sqrt(5))
            levels.append(together.noise[row, right].mean() / together.noise[row, left].mean())
    pulls = np.array(pulls)
    assert len(pulls) > 100
    assert np.abs(np.log(levels)).max() > 0.4  # the seam does part noise of different levels
    assert abs(pulls.mean()) < 4 / np.sqrt(len(pulls))
    # Neighbouring pixels are correlated after resampling: a mean of five scatters a little more.
    assert 0.8 < pulls.std() < 1.4


def test_only_pixels_that_a_saturated_one_reaches_are_flagged(tmp_path):
    """From the header's SATURATE to the patch: the kernel's footprint and no further."""
    wcs = tan_wcs(angle=6.0, size=SIZE)
    rng = np.random.default_rng(5)
    x, y = rng.uniform(40, SIZE - 40, (2, 12))
    image = gaussians((SIZE, SIZE), x, y, 3.5, 30_000.0) + rng.normal(0, 1.0, (SIZE, SIZE))
    image = image.astype(np.float32)
    level = 1500.0
    saturated = np.argwhere(image >= level)
    assert 12 < len(saturated) < 200
    noise = np.ones_like(image)
    tile = write_tile(tmp_path / "t.fits", image, wcs, noise, header={"SATURATE": level})
    reader = open_tile(tile)
    native = reader.section(slice(0, SIZE), slice(0, SIZE)).flags
    np.testing.assert_array_equal(native, np.where(image >= level, np.uint8(Flag.SATURATED), 0))

    output = patch_at(150.0, 2.0, GRID, PIXELS)
    found = warp_tile(reader, output, pixel_map(output, (PIXELS,) * 2, reader.wcs), "lanczos3")
    rows, columns = np.indices((PIXELS, PIXELS))
    u, v = sky_to_pixel(wcs, *output.pixel_to_world_values(columns, rows))
    distance = np.full(u.shape, np.inf)  # to the nearest saturated pixel, along the worse axis
    for at_v, at_u in saturated:
        distance = np.minimum(distance, np.maximum(abs(u - at_u), abs(v - at_v)))
    flagged = (found.flags & Flag.SATURATED) != 0
    assert flagged[distance < 2.999].all()
    # The footprint is told by whole pixels: up to half a one more.
    assert not flagged[distance > 3.501].any()
    assert not (found.flags & ~np.uint8(Flag.SATURATED)).any()
    assert np.isfinite(found.flux).all()
