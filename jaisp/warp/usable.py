"""Which pixels of a tile can be used, and how noisy they are: one pass over a part of it."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Num, UInt8

from jaisp.store.layout import Flag

# Archives mark pixels without data by an absurd noise: Euclid's RMS has 1e16.
LARGEST_RMS = 1e15
KINDS = {"rms": 0, "variance": 1, "inverse_variance": 2}
EDGE, BAD, SATURATED = int(Flag.EDGE), int(Flag.BAD), int(Flag.SATURATED)
NO_MASK = np.zeros((0, 0), np.uint8)
ANY_BIT = -1


def mark_pixels(
    flux: Float32[np.ndarray, "y x"],
    noise: Num[np.ndarray, "y x"],
    mask: Num[np.ndarray, "y x"] | None,
    kind: str,
    saturation: float,
    bad_bits: int | None = None,
) -> tuple[Float32[np.ndarray, "y x"], UInt8[np.ndarray, "y x"]]:
    """1σ noise and flags; `flux` and noise become NaN where a pixel can't be used.

    EDGE where the flux is not finite, BAD where the noise is invalid (not finite, ≤ 0, or a
    sentinel) or the mask has one of `bad_bits` (None: is not zero), SATURATED at or above
    `saturation`. noise: of `kind` rms, variance or inverse_variance.
    """
    sigma = np.empty(flux.shape, np.float32)
    flags = np.empty(flux.shape, np.uint8)
    if mask is None:
        mask = NO_MASK
    elif mask.dtype.kind == "f":
        mask = np.nan_to_num(mask, nan=0.0 if bad_bits is not None else 1.0).astype(np.int64)
    bits = ANY_BIT if bad_bits is None else bad_bits
    _mark(flux, noise, mask, bits, KINDS[kind], float(saturation), sigma, flags)
    return sigma, flags


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _mark(flux, noise, mask, bits, kind, saturation, sigma, flags):
    has_mask = mask.size > 0
    for i in range(flux.shape[0]):
        for j in range(flux.shape[1]):
            value = np.float64(noise[i, j])
            valid = value > 0 and value < np.inf
            if valid and kind == 1:
                value = np.sqrt(value)
            elif valid and kind == 2:
                value = 1 / np.sqrt(value)
            valid = valid and value < LARGEST_RMS
            flag = 0
            if not np.isfinite(flux[i, j]):
                flag |= EDGE
            elif flux[i, j] >= saturation:
                flag |= SATURATED
            if not valid or (has_mask and np.int64(mask[i, j]) & bits != 0):
                flag |= BAD
            flags[i, j] = flag
            if flag & (EDGE | BAD):
                flux[i, j] = np.nan
                sigma[i, j] = np.nan
            else:
                sigma[i, j] = value
