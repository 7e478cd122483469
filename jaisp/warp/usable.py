"""Which pixels of a tile can be used, and how noisy they are."""

import numpy as np
from jaxtyping import Float32, Num, UInt8

from jaisp.store.layout import Flag

# Archives mark pixels without data by an absurd noise: Euclid's RMS has 1e16.
LARGEST_RMS = 1e15


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
    with np.errstate(invalid="ignore"):
        bad = ~((sigma > 0) & (sigma < LARGEST_RMS))
        flags = np.where(flux >= saturation, np.uint8(Flag.SATURATED), np.uint8(0))
    if mask is not None:
        bad |= _masked(mask, bad_bits)
    edge = ~np.isfinite(flux)
    flags |= bad.view(np.uint8) * np.uint8(Flag.BAD)
    flags |= edge.view(np.uint8) * np.uint8(Flag.EDGE)
    missing = np.logical_or(bad, edge, out=bad)
    if missing.any():
        flux[missing] = np.nan
        sigma[missing] = np.nan
    return sigma, flags


def _sigma(noise: Num[np.ndarray, "y x"], kind: str) -> Float32[np.ndarray, "y x"]:
    """A copy; anything where the noise is none."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore", under="ignore"):
        if kind == "variance":
            noise = np.sqrt(noise)
        elif kind == "inverse_variance":
            noise = 1 / np.sqrt(noise)
        return np.array(noise, np.float32)


def _masked(mask: Num[np.ndarray, "y x"], bad_bits: int | None) -> np.ndarray:
    if bad_bits is None:
        return mask != 0
    if mask.dtype.kind == "f":
        mask = np.nan_to_num(mask, nan=0.0).astype(np.int64)
    bits = mask.view(f"u{mask.dtype.itemsize}")
    return (bits & (bad_bits & int(np.iinfo(bits.dtype).max))) != 0
