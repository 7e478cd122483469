"""Codes of flux and noise: round trips, steps, ranges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.store.codes import K, decode_flux, decode_noise
from jaisp.store.encode import encode_flux, encode_noise, is_clipped

SIGMA = 8.0  # in steps: scale is an eighth of the background noise
scales = st.floats(1e-3, 1e4)


def round_trip(flux, scale):
    plane = np.asarray(flux, np.float64).reshape(1, -1)
    scale = np.asarray(scale, np.float64)
    return decode_flux(encode_flux(plane, scale), scale)[0]


@settings(max_examples=60, deadline=None)
@given(scale=scales, steps=st.lists(st.floats(-6e6, 6e6), min_size=1, max_size=40))
def test_flux_comes_back_within_half_a_step(scale, steps):
    flux = scale * np.array(steps)
    step = scale * np.sqrt(1 + np.square(steps) / K**2)
    assert np.all(np.abs(round_trip(flux, scale) - flux) <= 0.5001 * step + 1e-6 * np.abs(flux))


@settings(max_examples=60, deadline=None)
@given(scale=scales, steps=st.floats(-400, 400))
def test_near_zero_the_error_is_half_a_scale(scale, steps):
    assert abs(round_trip(scale * steps, scale)[0] - scale * steps) <= 0.503 * scale


@settings(max_examples=60, deadline=None)
@given(scale=scales, steps=st.floats(2e4, 6e6), sign=st.sampled_from([-1, 1]))
def test_beyond_the_linear_range_the_relative_step_is_small(scale, steps, sign):
    codes = encode_flux(np.array([[sign * steps * scale]]), np.asarray(scale))
    here, next_one = (
        decode_flux(codes + np.int16(sign * more), np.asarray(scale)) for more in (0, 1)
    )
    assert abs(next_one / here - 1).item() <= 2.5e-4
    assert round_trip(sign * steps * scale, scale)[0] == pytest.approx(
        sign * steps * scale, rel=1.26e-4
    )


@settings(max_examples=30, deadline=None)
@given(scale=scales, code=st.integers(-32767, 32767))
def test_every_code_survives(scale, code):
    codes = np.array([[code]], np.int16)
    scale = np.asarray(scale, np.float32)
    assert np.array_equal(encode_flux(decode_flux(codes, scale), scale), codes)


@settings(max_examples=30, deadline=None)
@given(flux=st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 3.0]), min_size=1))
def test_only_what_is_not_finite_is_missing(flux):
    assert np.array_equal(np.isnan(round_trip(flux, 1.0)), ~np.isfinite(flux))


def test_without_a_scale_all_is_missing():
    assert np.isnan(round_trip([1.0, 0.0], 0.0)).all()


def test_quantising_adds_little_variance():
    noise = np.random.default_rng(1).normal(0, SIGMA, 400_000)
    added = np.var(round_trip(noise, 1.0) - noise) / SIGMA**2
    assert added == pytest.approx(1 / 12 / 64, rel=0.02)
    assert added < 0.002


@pytest.mark.parametrize("signal_to_noise", [5, 50, 5e3, 5e4, 5e5])
def test_a_star_keeps_its_flux(signal_to_noise):
    y, x = np.mgrid[-12:13, -12:13]
    profile = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    profile /= profile.sum()
    # S/N of the matched filter: flux * sqrt(sum profile^2) / sigma
    flux = signal_to_noise * SIGMA / np.sqrt(np.sum(profile**2))
    rng = np.random.default_rng(2)
    ratios = []
    for _ in range(30):
        star = flux * profile + rng.normal(0, SIGMA, profile.shape)
        stored = decode_flux(encode_flux(star, np.asarray(1.0)), np.asarray(1.0))
        ratios.append(np.sum((stored - star) * profile) / np.sum(profile**2) / flux)
    assert abs(np.mean(ratios)) < 1e-3


def test_clipping_is_at_760_000_sigma_and_is_told():
    sigma = np.array([6e5, 8e5, -8e5, np.nan]) * SIGMA
    clipped = is_clipped(sigma[None], np.asarray(1.0))[0]
    assert clipped.tolist() == [False, True, True, False]
    stored = round_trip(sigma, 1.0)
    assert stored[1] == -stored[2] == pytest.approx(7.63e5 * SIGMA, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(scale=st.floats(1e-3, 1e4), ratio=st.floats(1 / 240, 240))
def test_noise_comes_back_to_2_percent(scale, ratio):
    scale = np.asarray(scale, np.float32)
    noise = np.array([[ratio * float(scale)]])
    stored = decode_noise(encode_noise(noise, scale), scale)
    assert stored == pytest.approx(noise, rel=0.022)


def test_invalid_noise_is_code_zero_and_nan():
    noise = np.array([[np.nan, 0.0, -1.0, np.inf, 1e3, 1e-3, 1.0]])
    codes = encode_noise(noise, np.asarray(1.0))
    assert codes.tolist() == [[0, 0, 0, 0, 0, 1, 128]]
    assert np.isnan(decode_noise(codes, np.asarray(1.0))[0]).tolist() == [True] * 5 + [False] * 2
    assert not encode_noise(noise, np.asarray(0.0)).any()
