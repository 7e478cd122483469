"""Flux and noise to small integers, compiled: `jaisp.store.codes` says what the integers mean.

Apart from the way back, because numba takes a second to import and only writers need this.
"""

import math
from functools import cache
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8

from jaisp.store.codes import LARGEST_CODE, MISSING, NOISE_MIDDLE, NOISE_STEPS_PER_OCTAVE, K

# Below this, four terms of asinh's series are right to 1e-4 of a code.
SERIES = 0.25
# The largest flux that is not clipped, in steps.
_LIMIT = K * np.sinh((LARGEST_CODE + 0.5) / K)
# Bits of a float32 that tell its code: sign, exponent and eleven of the mantissa.
TOLD = 20


def encode_flux(
    flux: Float[np.ndarray, "*stack y x"], scale: Float[np.ndarray, "*stack"]
) -> Int16[np.ndarray, "*stack y x"]:
    """Flux (any unit) -> codes; `scale` is the step near zero, in the same unit.

    What is not finite, or has no positive scale, becomes MISSING; what is beyond the range is
    clipped to it (`is_clipped` tells where).
    """
    codes = np.empty(flux.shape, np.int16)
    scales = np.broadcast_to(np.asarray(scale, np.float64), flux.shape[:-2])
    for place in np.ndindex(scales.shape):
        _encode_plane(np.ascontiguousarray(flux[place]), float(scales[place]), codes[place])
    return codes


def is_clipped(
    flux: Float[np.ndarray, "*stack y x"], scale: Float[np.ndarray, "*stack"]
) -> Bool[np.ndarray, "*stack y x"]:
    """Where `encode_flux` has to clip: finite fluxes beyond the last code."""
    limit = np.asarray(scale, np.float64) * _LIMIT
    with np.errstate(invalid="ignore"):
        return np.asarray(_beyond(flux, limit[..., None, None]))


def encode_noise(
    noise: Float[np.ndarray, "*stack y x"], noise_scale: Float[np.ndarray, "*stack"]
) -> UInt8[np.ndarray, "*stack y x"]:
    """Noise (1 sigma) -> codes, good to 2.2 % from noise_scale / 245 to noise_scale * 245.

    Noise that is not finite and positive becomes 0, invalid; so does noise above the range, since
    a pixel must never look better than it is. Noise below the range is raised to its end.
    """
    scale = np.asarray(noise_scale, np.float32)[..., None, None]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.asarray(noise, np.float32) / np.where(scale > 0, scale, np.float32(np.nan))
    return np.take(_noise_codes(), ratio.view(np.uint32) >> (32 - TOLD))


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _encode_plane(flux, scale, codes):
    if not scale > 0:
        codes[:] = MISSING
        return
    unit = 1 / (scale * K)
    for i in range(flux.shape[0]):
        row, code = flux[i], codes[i]
        near = True
        # Without branches, so that it is done in vectors: nearly all pixels are near zero.
        for j in range(row.size):
            z = np.float64(row[j]) * unit
            q = z * z
            value = K * z * (1 - q * (1 / 6 - q * (3 / 40 - q * (15 / 336 - q * (105 / 3456)))))
            near &= abs(z) < SERIES
            code[j] = np.int16(np.rint(value)) if abs(z) < SERIES else MISSING
        if near:
            continue
        for j in range(row.size):
            z = np.float64(row[j]) * unit
            if abs(z) >= SERIES and np.isfinite(z):
                value = K * math.asinh(z)
                code[j] = np.int16(np.rint(min(max(value, -LARGEST_CODE), LARGEST_CODE)))


@numba.vectorize(["bool_(float32,float64)", "bool_(float64,float64)"], cache=True)
@no_type_check
def _beyond(flux, limit):
    return np.isfinite(flux) and limit > 0 and abs(flux) > limit


@cache
def _noise_codes() -> UInt8[np.ndarray, " ratio"]:
    """The code of every ratio to the noise scale, by its leading bits."""
    bits = (np.arange(2**TOLD, dtype=np.uint32) << (32 - TOLD)) + (1 << (31 - TOLD))
    with np.errstate(invalid="ignore"):
        ratio = bits.view(np.float32).astype(float)
    # The first bin holds zero itself.
    valid = np.isfinite(ratio) & (bits >> (32 - TOLD) > 0) & (ratio > 0)
    code = np.rint(NOISE_STEPS_PER_OCTAVE * np.log2(np.where(valid, ratio, 1.0))) + NOISE_MIDDLE
    return np.where(valid & (code <= 255), code.clip(1, 255), 0).astype(np.uint8)
