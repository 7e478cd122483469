"""Views of one sky: matched by sky, not by place in the crop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from jaisp.model.inputs import network_inputs
from jaisp.simulate.resample import lanczos
from jaisp.train.patches import Codes
from jaisp.train.views import (
    Degradation,
    crop_corners,
    cut,
    degrade,
    draw_degradation,
    draw_phase,
    keep_bands,
    matching,
    split_bands,
    turn_plane,
)
from jaisp.train.weight import token_snr

SIDE, CROP = 10, 6
WHITE = torch.ones(1, 1)


def numbered_planes(n: int) -> Codes:
    """Every pixel holds the number of its token."""
    tokens = np.arange(SIDE * SIDE, dtype=np.int16).reshape(1, SIDE, SIDE)
    return codes_of(tokens.repeat(n, axis=1).repeat(n, axis=2))


def codes_of(flux: np.ndarray) -> Codes:
    """Planes of this flux or these codes, in steps of an eighth of the noise, which is 1."""
    noise = np.full(flux.shape, 128, np.uint8)
    mask, bands = np.zeros(flux.shape, np.uint8), np.ones(len(flux), np.float32)
    planes = {"flux": flux, "noise": noise, "mask": mask}
    scales = {"scale": bands / 8, "noise_scale": bands}
    return {name: torch.from_numpy(values) for name, values in (planes | scales).items()}


@settings(max_examples=60, deadline=None)
@given(
    corners=st.tuples(*[st.integers(0, SIDE - CROP)] * 4),
    turn=st.integers(0, 7),
    n=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_matching_tokens_show_the_same_sky(corners, turn, n):
    first, second = np.array(corners[:2]), np.array(corners[2:])
    places = matching(first, second, CROP, turn)
    shown = []
    for corner, pixels, place in zip((first, second), n, places, strict=True):
        view = cut(numbered_planes(pixels), corner, CROP, pixels, turn)
        shown.append(view["flux"][0, ::pixels, ::pixels].ravel()[place])
    np.testing.assert_array_equal(shown[0], shown[1])
    # In the order of the sky, whatever the turn: weights are computed on unturned pixels.
    np.testing.assert_array_equal(shown[0], np.sort(shown[0]))
    overlap = np.prod(CROP - np.abs(first - second))
    for place in places:
        assert len(np.unique(place)) == len(place) == overlap


def point_planes(n: int, at: tuple[float, float]) -> Codes:
    """A source within one pixel, at a place in tokens, on noiseless sky."""
    flux = np.zeros((1, SIDE * n, SIDE * n), np.float32)
    flux[0, int(at[0] * n), int(at[1] * n)] = 100
    return codes_of(flux)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), at=st.tuples(*[st.floats(4, 6)] * 2))
def test_displaced_grids_agree_between_surveys(seed, at):
    """A grid displaced by part of a token is the same sky in 8 and in 16 pixels a token."""
    rng = np.random.default_rng(seed)
    # A multiple of an eighth of a token is a pixel's edge: stay off it.
    at = (np.floor(np.array(at) * 8) + 0.25) / 8
    pixels = (8, 16)
    corner = rng.integers(0, 4, 2) + draw_phase(rng, pixels)
    expected = np.floor(at - corner).astype(int)
    if (expected >= CROP).any():
        return
    for n in pixels:
        flux = cut(point_planes(n, tuple(at)), corner, CROP, n, 0)["flux"]
        assert flux.shape == (1, CROP * n, CROP * n)
        snr = token_snr(inputs_of(flux), WHITE, n)[0].numpy()
        assert np.unravel_index(snr.argmax(), snr.shape) == tuple(expected)


def test_surveys_without_a_common_pixel_are_displaced_by_whole_tokens_alone():
    rng = np.random.default_rng(0)
    assert all((draw_phase(rng, (5, 8)) == 0).all() for _ in range(20))
    assert len({tuple(draw_phase(rng, (5, 5))) for _ in range(200)}) == 25


def test_the_eight_turns_differ():
    plane = np.arange(9).reshape(3, 3)
    assert len({turn_plane(plane, turn).tobytes() for turn in range(8)}) == 8


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.integers(0, CROP - 1))
def test_crops_lie_in_the_patch_and_overlap(seed, shift):
    rng = np.random.default_rng(seed)
    first, second = crop_corners(rng, np.ones((SIDE, SIDE), np.float32), CROP, shift)
    for corner in (first, second):
        assert (corner >= 0).all()
        assert (corner <= SIDE - CROP).all()
    assert (np.abs(first - second) <= shift).all()


def test_crops_go_where_the_sources_are():
    interest = np.full((SIDE, SIDE), 1e-6, np.float32)
    interest[8, 9] = 1
    rng = np.random.default_rng(0)
    for _ in range(20):
        for corner in crop_corners(rng, interest, CROP, 3):
            assert (corner >= [3, 4]).all()


def test_pairs_lie_at_different_places_in_their_crops():
    rng = np.random.default_rng(0)
    apart = []
    for _ in range(50):
        first, second = crop_corners(rng, np.ones((SIDE, SIDE), np.float32), CROP, 3)
        apart.append((first != second).any())
    assert np.mean(apart) > 0.5


def test_a_degraded_copy_is_noisier_and_says_so():
    inputs = torch.zeros((2, 3, 40, 40))
    inputs[:, 1] = 1
    inputs[0, :, :10] = 0
    worse = degrade(inputs, Degradation(noise=1.5, blur=1.2, seed=3)).numpy()
    assert not worse[0, :, :10].any()
    added = np.expm1(2 * worse[1, 2, 0, 0])
    assert added == pytest.approx(1.5**2, rel=1e-5)
    assert np.std(np.sinh(worse[1, 0])) == pytest.approx(np.sqrt(added / (1 + added)), rel=0.1)


@pytest.mark.parametrize("blur", [0.0, 0.4, 1.5])
def test_a_degraded_copy_keeps_flux_and_is_blurred_as_told(blur):
    inputs = torch.zeros((1, 3, 41, 41))
    inputs[:, 1] = 1
    inputs[0, 0, 20, 20] = float(np.arcsinh(1e6))
    worse = degrade(inputs, Degradation(noise=0.5, blur=blur, seed=1)).numpy()
    flux = np.sinh(worse[0, 0].astype(float)) * np.exp(worse[0, 2])
    assert flux.sum() == pytest.approx(1e6, rel=1e-3)
    expected = gaussian_filter(np.sinh(inputs[0, 0].double().numpy()), blur, mode="constant")
    np.testing.assert_allclose(flux, expected, atol=1e-3 * expected.max())


def test_degradations_come_from_the_draw():
    drawn = [draw_degradation(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    inputs = torch.ones((1, 3, 8, 8))
    assert torch.equal(degrade(inputs, drawn[0]), degrade(inputs, drawn[1]))
    other = Degradation(drawn[0].noise, drawn[0].blur, drawn[2].seed)
    assert not torch.equal(degrade(inputs, drawn[0]), degrade(inputs, other))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), covered=st.lists(st.booleans(), min_size=2, max_size=6))
def test_band_sets_are_disjoint_and_not_empty(seed, covered):
    covered = np.array(covered)
    covered[:2] = True
    first, second = split_bands(np.random.default_rng(seed), covered)
    assert first.any()
    assert second.any()
    assert not (first & second).any()
    np.testing.assert_array_equal(first | second, covered)


def test_one_band_always_stays():
    rng = np.random.default_rng(0)
    present = np.array([False, True, True])
    for _ in range(50):
        shown = keep_bands(rng, present, 0.9)
        assert shown.any()
        assert not shown[0]
    np.testing.assert_array_equal(keep_bands(rng, present, 0.0), present)


def inputs_of(flux: np.ndarray) -> torch.Tensor:
    """Network inputs of one sample [band, y, x] of noise 1."""
    planes = torch.from_numpy(flux.astype(np.float32))[None]
    return network_inputs(planes, torch.ones_like(planes), None, torch.ones(len(flux)))


def test_token_snr_of_a_constant():
    # 2 σ in each of 16 pixels is 8 σ in the token; two bands in quadrature.
    flux = np.full((2, 8, 8), 2.0)
    white = WHITE.expand(1, 2)
    np.testing.assert_allclose(token_snr(inputs_of(flux), white, 4), 8 * np.sqrt(2), rtol=1e-5)
    known = torch.tensor([[1.0, 2.0]])
    np.testing.assert_allclose(token_snr(inputs_of(flux), known, 4), np.hypot(8, 4), rtol=1e-5)
    flux[1] = -1
    np.testing.assert_allclose(token_snr(inputs_of(flux), white, 4), 8, rtol=1e-5)
    flux[:, :, :3] = np.nan
    missing = token_snr(inputs_of(flux), white, 4)[0].isnan()
    np.testing.assert_array_equal(missing, [[True, False], [True, False]])


def test_blank_resampled_sky_has_no_signal():
    """Noise of pixels of 0.3″ on 0.1″, as Euclid's near infrared has it."""
    rng = np.random.default_rng(8)
    native = rng.standard_normal((3, 326, 326)).astype(np.float32)
    flux = np.stack([lanczos(band, 3) for band in native])[:, :960, :960]
    inputs, factor = inputs_of(flux), torch.full((1, 3), 2.8)
    white = token_snr(inputs, torch.ones(1, 3), 8)
    assert (white > 5).float().mean() > 0.08
    assert (token_snr(inputs, factor, 8) > 5).float().mean() < 1e-3


def test_a_degraded_copy_has_noise_between_its_own_and_white():
    before = np.array([1.0, 3.0], np.float32)
    worse = Degradation(noise=2.0, blur=0.7, seed=1)
    np.testing.assert_allclose(worse.correlation(before), [1, np.sqrt(13 / 5)], rtol=1e-6)
    rng = np.random.default_rng(9)
    flux = lanczos(rng.standard_normal((1, 326, 326)).astype(np.float32)[0], 3)[None, :960, :960]
    factor = torch.from_numpy(worse.correlation(np.array([2.8], np.float32)))[None]
    snr = token_snr(degrade(inputs_of(flux)[0], worse)[None], factor, 8)
    # The positive half of a normal distribution.
    assert snr.square().mean().sqrt() == pytest.approx(np.sqrt(0.5), rel=0.1)
