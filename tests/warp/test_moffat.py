import numpy as np
import pytest
from scipy.optimize import least_squares

from jaisp.warp.moffat import BOUNDS, CORE, stamp_fwhm

Y, X = np.mgrid[-12:13, -12:13].astype(float)


def profile(fwhm: float, beta: float, x: float, y: float) -> np.ndarray:
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    return (1 + ((X - x) ** 2 + (Y - y) ** 2) / alpha**2) ** -beta


def by_scipy(stamp: np.ndarray) -> float:
    value = stamp.astype(float) / stamp.max()
    y0, x0 = np.unravel_index(np.argmax(value), value.shape)
    reach = CORE * max(1.0, np.sqrt((value > 0.5).sum() / np.pi))
    x, y = X + 12, Y + 12
    core = np.hypot(x - x0, y - y0) <= reach
    x, y, value = x[core], y[core], value[core]

    def residual(p: np.ndarray) -> np.ndarray:
        r2 = ((x - p[1]) ** 2 + (y - p[2]) ** 2) / np.exp(2 * p[3])
        return p[0] * (1 + r2) ** -(1 + np.exp(p[4])) - value

    bounds = np.array([(-np.inf, np.inf)] * 3 + list(BOUNDS)).T
    start = [1.0, x0, y0, np.log(reach / 2), np.log(2.0)]
    precise = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-12)
    found = least_squares(residual, start, bounds=tuple(bounds), **precise).x
    alpha, beta = np.exp(found[3]), 1 + np.exp(found[4])
    return float(2 * alpha * np.sqrt(2 ** (1 / beta) - 1))


@pytest.mark.parametrize("fwhm", [1.6, 2.5, 3.5, 6.0])
@pytest.mark.parametrize("beta", [1.8, 3.0, 6.0])
def test_a_moffat_profile_has_its_own_width(fwhm: float, beta: float) -> None:
    stamp = (40 * profile(fwhm, beta, 0.3, -0.4)).astype(np.float32)
    assert stamp_fwhm(stamp) == pytest.approx(fwhm, rel=1e-6)


@pytest.mark.parametrize("noise", [0.003, 0.03, 0.1])
def test_noisy_stars_are_fitted_as_scipy_fits_them(noise: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        width, beta = rng.uniform(1.6, 6), rng.uniform(1.8, 6)
        stamp = profile(width, beta, *rng.uniform(-0.5, 0.5, 2))
        stamp = (stamp + noise * rng.standard_normal(stamp.shape)).astype(np.float32)
        assert stamp_fwhm(stamp) == pytest.approx(by_scipy(stamp), rel=2e-4)


def test_stamps_without_a_source_end_somewhere() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        fwhm = stamp_fwhm(rng.standard_normal(X.shape).astype(np.float32))
        assert np.isnan(fwhm) or 0 < fwhm < len(X)
    blank = np.zeros(X.shape, np.float32)
    assert np.isnan(stamp_fwhm(blank))
    assert np.isnan(stamp_fwhm(blank + np.float32(np.nan)))
