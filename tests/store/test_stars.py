"""Stars from faint to saturated, from a noisy image through the store and back."""

import numpy as np
import pytest

import jaisp
from jaisp.config import group_hash
from jaisp.sky import cells
from jaisp.store.layout import Flag
from jaisp.store.publish import publish
from jaisp.store.writer import PatchPlanes
from tests.store.groups import realistic_planes, small_config, write_group

SIGMA = 20.0  # nJy a pixel, of the sky
GAIN = 0.5  # electrons a nJy: what a source adds to the noise
PIXELS = 32
# One band each; the last one's peaks are beyond the codes.
SIGNAL_TO_NOISE = {"a": 5.0, "b": 50.0, "c": 5e2, "d": 5e3, "e": 5e4, "f": 5e5, "g": 4e6}
LAST_FLUX = SIGMA / 8 * 4096 * np.sinh(32767.5 / 4096)


def moffat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Stars of FWHM 0.7″ at 0.2″ a pixel with wings of β = 3, one a row, of flux 1 on its patch."""
    places = np.arange(PIXELS)
    distance = (places - x[:, None])[:, None, :] ** 2 + (places - y[:, None])[:, :, None] ** 2
    width = 0.7 / 0.2 / 2 / np.sqrt(2 ** (1 / 3) - 1)
    profile = (1 + distance / width**2) ** -3
    return profile / profile.sum(axis=(1, 2), keepdims=True)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Images of 840 stars a band, at any place of a pixel, and the published store of them."""
    surveys = {
        name: {"bands": bands, "pixel_arcsec": pixel, "archive": {"kind": "simulated"}}
        for name, bands, pixel in (("stars", list(SIGNAL_TO_NOISE), 0.2), ("other", ["r"], 0.4))
    }
    sky = {"ra": 53.1, "dec": -28.1, "width_arcmin": 3.2, "height_arcmin": 3.0}
    config = small_config(sky=sky, surveys=surveys)
    (cell,) = cells(config)
    rng = np.random.default_rng(1)
    profiles = moffat(*rng.uniform(PIXELS / 2 - 1, PIXELS / 2, (2, len(cell))))
    unit = SIGMA / np.sqrt(np.sum(profiles**2, axis=(1, 2)))  # flux of S/N 1, matched filter
    flux = unit[:, None] * np.array(list(SIGNAL_TO_NOISE.values()))
    stars = flux[:, :, None, None] * profiles[:, None]
    images = stars + rng.normal(0, np.sqrt(SIGMA**2 + stars / GAIN))
    images = images.astype(np.float32)
    noise = np.full(images.shape[1:], SIGMA, np.float32)
    clear, fwhm = np.zeros(noise.shape, np.uint8), np.full(len(noise), 0.7, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("stars"))
        rows = [PatchPlanes(image, noise, clear, fwhm) for image in images]
        others = [realistic_planes(0, 1, 16), *[None] * (len(cell) - 1)]
        for name, planes, pixels in (("stars", rows, PIXELS), ("other", others, 16)):
            write_group(
                config.results / "patches.zarr/field" / name,
                planes,
                surveys[name]["bands"],
                pixels,
                attributes={"hash": group_hash(config, name, cell)},
            )
        publish(config)
        store = jaisp.open(config.results / "patches.zarr")
        views = [patch["stars"] for patch in store]
        read = np.stack([view.flux for view in views])
        masks = np.stack([view.mask for view in views])
    return profiles, flux, images, read, masks


@pytest.mark.parametrize("band", list(SIGNAL_TO_NOISE)[:-1])
def test_a_star_keeps_its_flux_and_no_flag(field, band):
    profiles, flux, images, read, masks = field
    number = list(SIGNAL_TO_NOISE).index(band)
    # The very same noisy image before and after, so that only the store's own error shows.
    change = read[:, number].astype(float) - images[:, number]
    weights = profiles / np.sum(profiles**2, axis=(1, 2), keepdims=True)
    for weight in (weights, np.ones_like(profiles)):
        error = np.sum(change * weight, axis=(1, 2)) / flux[:, number]
        # The mean of the faintest is known to 7e-3 / √840 by the matched filter, 3 % by the sum.
        tolerance = max(1e-3, 3 * error.std() / np.sqrt(len(error)))
        assert abs(error.mean()) < tolerance
        if weight is weights:
            assert tolerance == 1e-3
    assert not masks[:, number].any()
    assert np.isfinite(read[:, number]).all()


def test_only_clipped_pixels_are_flagged_and_the_others_survive(field):
    _, _, images, read, masks = field
    beyond = images[:, -1] > LAST_FLUX
    assert beyond.any(axis=(1, 2)).all()
    assert beyond.mean() < 0.02
    np.testing.assert_array_equal(masks[:, -1], np.where(beyond, np.uint8(Flag.CLIPPED), 0))
    np.testing.assert_allclose(read[:, -1][beyond], LAST_FLUX, rtol=2.5e-4)
    bright = ~beyond & (images[:, -1] > 1e3 * SIGMA)
    np.testing.assert_allclose(read[:, -1][bright], images[:, -1][bright], rtol=2.5e-4)
