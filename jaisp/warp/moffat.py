"""The width of a point spread function's image, by a Moffat profile (1969, A&A 3, 455)."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32

CORE = 2.0  # radii of half the peak
# A fit has converged when a step is this short (pixels, and logarithms), or makes the squares
# smaller by no more than this share.
BOUNDS = ((-3.0, 6.0), (-3.0, 6.0))  # of log alpha and log (beta − 1)
STEP_TOLERANCE, SQUARES_TOLERANCE = 1e-6, 1e-8
LEAST_DAMPING = 1e-9
MOST_STEPS = 200


def stamp_fwhm(stamp: Float32[np.ndarray, "k k"]) -> float:
    """FWHM in pixels of a point source, pixel included, by a circular Moffat fit; NaN if none."""
    peak = float(stamp.max())
    if not (np.isfinite(stamp).all() and peak > 0):
        return float("nan")
    # The core alone is fitted: wings, neighbours and the sky have no say in where half is.
    y0, x0 = np.unravel_index(np.argmax(stamp), stamp.shape)
    y, x = np.indices(stamp.shape, dtype=float)
    reach = CORE * max(1.0, np.sqrt((stamp > peak / 2).sum() / np.pi))
    core = np.hypot(x - x0, y - y0) <= reach
    start = np.array([1.0, x0, y0, np.log(reach / 2), np.log(2.0)])
    fwhm = _moffat_fwhm(x[core], y[core], stamp[core].astype(float) / peak, start)
    return float(fwhm) if fwhm < len(stamp) else float("nan")


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _moffat_fwhm(x, y, value, parameters):
    """FWHM of the circular Moffat profile nearest to `value` by Levenberg (1944, Q. Appl. Math. 2,
    164) and Marquardt (1963, J. SIAM 11, 431); NaN where that goes nowhere.

    parameters: to start from: height, x0, y0, log alpha, log (beta − 1).
    """
    curvature, slope = np.empty((5, 5)), np.empty(5)
    sofar = _moffat_slopes(x, y, value, parameters, curvature, slope)
    trial_curvature, trial_slope = np.empty((5, 5)), np.empty(5)
    damping = 1e-3
    for _ in range(MOST_STEPS):
        for n, (lowest, highest) in enumerate(BOUNDS, 3):
            # One that would leave its bounds stays on them.
            at = parameters[n]
            if (at <= lowest and slope[n] > 0) or (at >= highest and slope[n] < 0):
                slope[n], curvature[n, :], curvature[n:, n] = 0, 0, 0
                curvature[n, n] = 1
        step = _damped_step(curvature, slope, damping)
        # No further than the slopes can tell, nor where a stamp without a source would lead.
        trial = parameters + step / max(np.abs(step).max(), 1.0)
        for n, (lowest, highest) in enumerate(BOUNDS, 3):
            trial[n] = min(max(trial[n], lowest), highest)
        reached = _moffat_slopes(x, y, value, trial, trial_curvature, trial_slope)
        gained = sofar - reached
        small = np.abs(trial - parameters).max() < STEP_TOLERANCE
        if gained >= 0:
            small |= gained <= SQUARES_TOLERANCE * sofar
            parameters, sofar, damping = trial, reached, max(damping / 10, LEAST_DAMPING)
            curvature, trial_curvature = trial_curvature, curvature
            slope, trial_slope = trial_slope, slope
        else:  # or NaN
            damping *= 10
        if small:
            alpha, beta = np.exp(parameters[3]), 1 + np.exp(parameters[4])
            return 2 * alpha * np.sqrt(2 ** (1 / beta) - 1)
    return np.nan


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _moffat_slopes(x, y, value, parameters, curvature, slope):
    """Half the gradient of the summed squares, its Gauss–Newton curvature, and the sum."""
    alpha, beta = np.exp(parameters[3]), 1 + np.exp(parameters[4])
    height, x0, y0 = parameters[0], parameters[1], parameters[2]
    along = np.empty(5)
    curvature[:], slope[:] = 0, 0
    squares = 0.0
    for k in range(value.size):
        dx, dy = (x[k] - x0) / alpha, (y[k] - y0) / alpha
        base = 1 + dx**2 + dy**2
        unit = base**-beta
        steep = 2 * height * beta * unit / base
        along[0], along[1], along[2] = unit, steep * dx / alpha, steep * dy / alpha
        along[3], along[4] = steep * (base - 1), -height * unit * np.log(base) * (beta - 1)
        wrong = height * unit - value[k]
        squares += wrong**2
        for m in range(5):
            slope[m] += along[m] * wrong
            for n in range(m + 1):
                curvature[m, n] += along[m] * along[n]
    return squares


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _damped_step(curvature, slope, damping):
    """Solves (curvature + damping · its diagonal) step = −slope by Cholesky's decomposition."""
    root, step = np.zeros((5, 5)), np.empty(5)
    for m in range(5):
        for n in range(m + 1):
            rest = curvature[m, n] * (1 + damping if m == n else 1.0)
            for k in range(n):
                rest -= root[m, k] * root[n, k]
            root[m, n] = np.sqrt(rest) if m == n else rest / root[n, n]
    for m in range(5):
        rest = -slope[m]
        for k in range(m):
            rest -= root[m, k] * step[k]
        step[m] = rest / root[m, m]
    for m in range(4, -1, -1):
        for k in range(m + 1, 5):
            step[m] -= root[k, m] * step[k]
        step[m] /= root[m, m]
    return step
