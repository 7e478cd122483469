"""Which pixels of a tile can be used, and how noisy they are."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Num, UInt8

from jaisp.store.layout import Flag

# Archives mark pixels without data by an absurd noise: Euclid's RMS has 1e16.
LARGEST_RMS = np.float32(1e15)
BAD, EDGE, SATURATED = (np.uint8(flag) for flag in (Flag.BAD, Flag.EDGE, Flag.SATURATED))


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
    sigma = _sigma(noise, kind)
    flags = np.empty(flux.shape, np.uint8)
    masked = np.zeros((1, 1), bool) if mask is None else _masked(mask, bad_bits)
    _mark(flux, sigma, np.broadcast_to(masked, flux.shape), np.float32(saturation), flags)
    return sigma, flags


@numba.njit(cache=True, nogil=True)
@no_type_check
def _mark(flux, sigma, masked, saturation, flags):
    for i in range(flux.shape[0]):
        for j in range(flux.shape[1]):
            value, noise = flux[i, j], sigma[i, j]
            edge = not np.isfinite(value)
            # Written so that a NaN is bad too.
            bad = masked[i, j] | (not ((noise > 0) & (noise < LARGEST_RMS)))
            saturated = value >= saturation
            flags[i, j] = bad * BAD | edge * EDGE | saturated * SATURATED
            missing = bad | edge
            flux[i, j] = np.float32(np.nan) if missing else value
            sigma[i, j] = np.float32(np.nan) if missing else noise


def _sigma(noise: Num[np.ndarray, "y x"], kind: str) -> Float32[np.ndarray, "y x"]:
    """A copy; anything where the noise is none."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        if kind == "variance":
            return np.sqrt(noise).astype(np.float32, copy=False)
        if kind == "inverse_variance":
            return (1 / np.sqrt(noise)).astype(np.float32, copy=False)
        return np.array(noise, np.float32)


def _masked(mask: Num[np.ndarray, "y x"], bad_bits: int | None) -> np.ndarray:
    if bad_bits is None:
        return mask != 0
    if mask.dtype.kind == "f":
        mask = np.nan_to_num(mask, nan=0.0).astype(np.int64)
    bits = mask.view(f"u{mask.dtype.itemsize}")
    return (bits & (bad_bits & int(np.iinfo(bits.dtype).max))) != 0
