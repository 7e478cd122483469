"""What tokens must and must not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.errors import UserError
from jaisp.model import Architecture, Model, SurveyPixels, random_model
from jaisp.model.blocks import grid_strides
from jaisp.model.inputs import network_inputs
from jaisp.model.size import SIZES
from jaisp.model.trunk import Trunk
from jaisp.store.layout import Flag

BANDS = ["g", "r", "i"]


def encode(model, flux, noise, mask=None, bands=BANDS, **options):
    with torch.inference_mode():
        return model.encode(flux, noise, mask, survey="rubin", bands=bands, **options)


def test_tokens_stand_on_the_shared_grid(model, image):
    assert encode(model, *image).shape == (2, 8, 12, 10)


def test_permuting_bands_changes_nothing(model, image):
    flux, noise = image
    order = [2, 0, 1]
    permuted = encode(model, flux[:, order], noise[:, order], bands=[BANDS[k] for k in order])
    torch.testing.assert_close(permuted, encode(model, flux, noise), rtol=1e-4, atol=1e-5)


def test_a_band_of_nothing_is_a_band_not_given(model, image):
    flux, noise = image
    without = flux.copy()
    without[:, 1] = np.nan
    kept = [0, 2]
    fewer = encode(model, flux[:, kept], noise[:, kept], bands=["g", "i"])
    torch.testing.assert_close(encode(model, without, noise), fewer, rtol=1e-4, atol=1e-5)


def test_each_sample_may_lack_its_own_bands(model, image):
    flux, noise = image
    flux = flux.copy()
    flux[0, 0], flux[1, 2] = np.nan, np.nan
    together = encode(model, flux, noise)
    alone = [encode(model, flux[k : k + 1], noise[k : k + 1]) for k in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["nan flux", "zero noise", "nan noise", "negative noise", "flag"])
def test_missing_is_missing_however_it_is_said(model, image, how):
    flux, noise = image
    hole = (slice(None), 1, slice(20, 40), slice(30, 50))
    mask = np.zeros(flux.shape, np.uint8)
    reference = flux.copy()
    reference[hole] = np.nan
    expected = encode(model, reference, noise)
    flux, noise = flux.copy(), noise.copy()
    if how == "nan flux":
        flux[hole] = np.inf
    elif how == "flag":
        mask[hole] = Flag.COSMIC_RAY
    else:
        noise[hole] = {"zero noise": 0, "nan noise": np.nan, "negative noise": -1}[how]
    torch.testing.assert_close(encode(model, flux, noise, mask), expected)


def test_missing_is_not_zero(model, image):
    flux, noise = image
    zero, missing = flux.copy(), flux.copy()
    zero[:, :, :40], missing[:, :, :40] = 0, np.nan
    apart = (encode(model, zero, noise) - encode(model, missing, noise)).abs()[:, :, :4]
    assert apart.amax(dim=1).min() > 1e-3


def test_flags_that_leave_pixels_usable_change_nothing(model, image):
    flux, noise = image
    mask = np.full(flux.shape, Flag.SATURATED | Flag.INTERPOLATED, np.uint8)
    torch.testing.assert_close(encode(model, flux, noise, mask), encode(model, flux, noise))


def test_nothing_at_all_is_finite(model, image):
    flux, noise = image
    assert torch.isfinite(encode(model, np.full_like(flux, np.nan), noise)).all()


def test_bright_stars_are_not_clipped(model, image):
    flux, noise = image
    bright, brighter = flux.copy(), flux.copy()
    bright[0, :, 40, 40], brighter[0, :, 40, 40] = 1e6, 2e6
    apart = (encode(model, bright, noise) - encode(model, brighter, noise)).abs()
    assert torch.isfinite(apart).all()
    assert apart[0, :, 5, 5].max() > 1e-4


def test_the_noise_level_is_seen(model, image):
    flux, noise = image
    apart = encode(model, flux, noise) - encode(model, 3 * flux, 3 * noise)
    assert apart.abs().max() > 1e-3


@settings(max_examples=8, deadline=None)
@given(row=st.integers(0, 4), column=st.integers(0, 4))
def test_windows_agree_beyond_the_receptive_field(row, column):
    torch.manual_seed(0)
    surveys = {"vst": SurveyPixels(bands=["r", "i"], grid_arcsec=0.32, pixels_per_token=5)}
    config = Architecture(surveys=surveys, token_arcsec=1.6, dimensions=6, size="tiny")
    model = Model(config).eval()
    rng = np.random.default_rng(1)
    flux = rng.normal(0, 3, (1, 2, 120, 120)).astype(np.float32)
    noise = np.ones_like(flux)
    reach = int(np.ceil(model.receptive_field_arcsec / 1.6))
    y, x = row * 5, column * 5
    window = (slice(None), slice(None), slice(y, y + 100), slice(x, x + 100))
    with torch.inference_mode():
        whole = model.encode(flux, noise, survey="vst", bands=["r", "i"])
        part = model.encode(flux[window], noise[window], survey="vst", bands=["r", "i"])
    inner = slice(reach, 20 - reach)
    torch.testing.assert_close(
        part[:, :, inner, inner],
        whole[:, :, row + reach : row + 20 - reach, column + reach : column + 20 - reach],
        rtol=0,
        atol=1e-4,
    )


def test_the_receptive_field_is_no_smaller_than_it_says(model):
    flux = np.random.default_rng(2).normal(0, 3, (1, 3, 256, 256)).astype(np.float32)
    noise = np.ones_like(flux)
    reach = int(np.ceil(model.receptive_field_arcsec / 1.6))
    touched = flux.copy()
    touched[:, :, 128:136, 128:136] += 1e4
    changed = (encode(model, touched, noise) - encode(model, flux, noise)).abs().amax(dim=(0, 1))
    rows, columns = torch.nonzero(changed > 0, as_tuple=True)
    for places in (rows, columns):
        assert reach - 2 <= (places - 16).abs().max() <= reach


@pytest.mark.parametrize("token_arcsec", [0.4, 0.8, 1.6])
def test_tokens_see_as_far_on_the_sky_whatever_their_size(token_arcsec):
    torch.manual_seed(0)
    size = replace(SIZES["tiny"], width=16)
    trunk = Trunk(size, measured=4, token_arcsec=token_arcsec, dimensions=3).double()
    side = 2 * int(20.0 / token_arcsec) + 1
    # Far away, little is left of what was changed.
    what, where = (torch.randn(1, n, side, side, dtype=torch.double) for n in (16, 4))
    touched, middle = what.clone(), side // 2
    touched[:, :, middle, middle] += 1e3
    with torch.inference_mode():
        changed = (trunk(touched, where)[1] - trunk(what, where)[1]).abs().amax(dim=(0, 1))
    seen = (torch.nonzero(changed > 0) - middle).abs().max() * token_arcsec
    assert size.context_arcsec - 1e-6 <= trunk.reach_arcsec < 2 * size.context_arcsec
    assert trunk.reach_arcsec - 2 * token_arcsec < seen < trunk.reach_arcsec + 1e-3


def test_the_last_dimensions_of_a_token_are_as_they_were_measured():
    torch.manual_seed(0)
    size = replace(SIZES["tiny"], width=16)
    trunk = Trunk(size, measured=6, token_arcsec=1.6, dimensions=16)
    what, measured, other = (torch.randn(1, n, 9, 9) for n in (16, 6, 6))
    with torch.inference_mode():
        tokens = [trunk(what, m)[1] for m in (measured, other, (measured + other) / 2)]
        elsewhere = trunk(torch.randn(1, 16, 9, 9), measured)[1]
    first, second, between = tokens
    # At most an eighth of them.
    torch.testing.assert_close(first[:, 14:], measured[:, :2])
    torch.testing.assert_close(elsewhere[:, 14:], first[:, 14:])
    assert not torch.allclose(elsewhere[:, :14], first[:, :14], atol=1e-3)
    assert not torch.allclose(between[:, :14], (first + second)[:, :14] / 2, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.tuples(st.integers(0, 16), st.integers(0, 16)).map(sorted),
    columns=st.tuples(st.integers(0, 14), st.integers(0, 14)).map(sorted),
    survey=st.sampled_from(["rubin", "vst"]),
)
def test_missing_sky_that_is_left_out_is_as_if_it_had_been_computed(rows, columns, survey):
    torch.manual_seed(3)
    grids = {"rubin": (0.2, 8), "vst": (0.32, 5)}
    surveys = {
        name: SurveyPixels(bands=["g", "r"], grid_arcsec=grid, pixels_per_token=n)
        for name, (grid, n) in grids.items()
    }
    config = Architecture(surveys=surveys, token_arcsec=1.6, dimensions=8, size="tiny")
    model, n = Model(config).eval(), grids[survey][1]
    flux = np.full((2, 2, 16 * n, 14 * n), np.nan, np.float32)
    y, x = (slice(low * n, high * n) for low, high in (rows, columns))
    flux[:, :, y, x] = np.random.default_rng(1).normal(0, 3, flux[:, :, y, x].shape)
    noise = np.ones_like(flux)
    encoder, bands = model.encoders[survey], torch.arange(2)
    with torch.inference_mode():
        planes = torch.from_numpy(flux), torch.from_numpy(noise)
        whole = model.features(survey, network_inputs(*planes, None, torch.ones(2)), bands)
        tokens, scales = model.encode(flux, noise, survey=survey, bands=["g", "r"], scales=True)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(tokens, whole["shared"], **close)
    torch.testing.assert_close(scales["fine"], whole["fine"], **close)
    part, beyond = encoder.covered(planes[0])
    if rows[1] < 10 and rows[0] < rows[1]:
        assert beyond[1] > 0
        assert flux[part].shape[2] < flux.shape[2]


def test_scales_come_beside_the_tokens(model, image):
    tokens, scales = encode(model, *image, scales=True)
    torch.testing.assert_close(tokens, encode(model, *image))
    assert scales["fine"].shape[-2:] == (48, 40)
    assert scales["token"].shape[-2:] == (12, 10)


@pytest.mark.parametrize(
    ("pixels", "grid", "finest", "coarsest", "strides"),
    [
        (16, 0.1, 0.4, 0.4, [4]),
        (16, 0.1, 0.1, np.inf, [1, 2, 4, 8]),
        (16, 0.1, 0.1, 0.4, [1, 2, 4]),
        (8, 0.2, 0.1, 0.4, [1, 2]),
        (8, 0.1, 0.2, 0.4, [2, 4]),
        (5, 0.32, 0.2, 0.4, [1]),
        (10, 0.16, 0.2, 0.4, [1, 2]),
        (1, 0.8, 0.4, 0.4, [1]),
    ],
)
def test_each_grid_divides_the_next_and_the_token(pixels, grid, finest, coarsest, strides):
    assert grid_strides(pixels, grid, finest, coarsest) == strides


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"survey": "hst"}, "hst"),
        ({"bands": ["g", "r", "H"]}, "H"),
        ({"bands": ["g", "g", "r"]}, "twice"),
        ({"bands": []}, "none given"),
        ({"bands": ["g", "r"]}, "2 bands"),
    ],
)
def test_mistakes_are_named(model, image, change, words):
    with pytest.raises(UserError, match=words):
        model.encode(*image, **({"survey": "rubin", "bands": BANDS} | change))


def test_sizes_are_whole_tokens(model, image):
    flux, noise = image
    with pytest.raises(UserError, match="whole tokens of 8"):
        encode(model, flux[..., :-4], noise[..., :-4])


def test_any_byte_order_will_do(model, image):
    flux, noise = image
    torch.testing.assert_close(encode(model, flux.astype(">f4"), noise), encode(model, flux, noise))


def test_a_random_model_has_other_weights_and_the_same_noise(model, image):
    model.typical_noise("rubin").fill_(7.0)
    state = torch.get_rng_state()
    fresh = random_model(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert fresh.config == model.config
    assert torch.equal(fresh.typical_noise("rubin"), model.typical_noise("rubin"))
    assert not torch.allclose(encode(fresh, *image), encode(model, *image))
    assert torch.equal(encode(random_model(model), *image), encode(fresh, *image))
