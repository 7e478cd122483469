"""How flux and noise become small integers, and back.

Flux is stored as int16 on a sinh scale, `flux = scale * K * sinh(code / K)`: steps of `scale`
near zero and of a constant fraction of the flux far from it, the inverse of the asinh magnitudes
of Lupton, Gunn & Szalay (1999, AJ 118, 1406). With `scale` one eighth of the background noise the
rounding adds 0.13 % to the variance of the noise, as FITS tile compression at q = 8 does
(Pence, White & Seaman 2010, PASP 122, 1065), and the range ends at 7.6e5 sigma instead of 4096.

Noise is stored as uint8 on a logarithmic scale, sixteen steps to a factor of two.
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Float32, Int16, UInt8

K = 4096.0
MISSING = np.int16(-32768)
LARGEST_CODE = 32767
STEPS_PER_NOISE = 8  # steps of flux in one sigma of the background
NOISE_STEPS_PER_OCTAVE = 16
NOISE_MIDDLE = 128  # the code of noise_scale itself


def encode_flux(
    flux: Float[np.ndarray, "*stack y x"], scale: Float[np.ndarray, "*stack"]
) -> Int16[np.ndarray, "*stack y x"]:
    """Flux (any unit) -> codes; `scale` is the step near zero, in the same unit.

    What is not finite, or has no positive scale, becomes MISSING; what is beyond the range is
    clipped to it (`is_clipped` tells where).
    """
    scale = np.asarray(scale, np.float64)[..., None, None]
    known = np.isfinite(flux) & (scale > 0)
    steps = np.where(known, flux, 0.0) / np.where(scale > 0, scale, 1.0)
    codes = np.rint(K * np.arcsinh(steps / K)).clip(-LARGEST_CODE, LARGEST_CODE)
    return np.where(known, codes, MISSING).astype(np.int16)


def is_clipped(
    flux: Float[np.ndarray, "*stack y x"], scale: Float[np.ndarray, "*stack"]
) -> np.ndarray:
    """Where `encode_flux` has to clip: finite fluxes beyond the last code."""
    limit = np.asarray(scale, np.float64) * K * np.sinh((LARGEST_CODE + 0.5) / K)
    limit = limit[..., None, None]
    return np.isfinite(flux) & (limit > 0) & (np.abs(flux) > limit)


def decode_flux(
    codes: Int16[np.ndarray, "*stack y x"], scale: Float[np.ndarray, "*stack"]
) -> Float32[np.ndarray, "*stack y x"]:
    """Codes -> flux in the unit of `scale`; MISSING becomes NaN."""
    flux = np.take(_sinh_table(), codes.view(np.uint16))
    flux *= np.asarray(scale, np.float32)[..., None, None]
    return flux


def encode_noise(
    noise: Float[np.ndarray, "*stack y x"], noise_scale: Float[np.ndarray, "*stack"]
) -> UInt8[np.ndarray, "*stack y x"]:
    """Noise (1 sigma) -> codes, good to 2.2 % from noise_scale / 245 to noise_scale * 245.

    Noise that is not finite and positive becomes 0, invalid; so does noise above the range, since
    a pixel must never look better than it is. Noise below the range is raised to its end.
    """
    noise_scale = np.asarray(noise_scale, np.float64)[..., None, None]
    valid = np.isfinite(noise) & (noise > 0) & (noise_scale > 0)
    ratio = np.where(valid, noise, 1.0) / np.where(noise_scale > 0, noise_scale, 1.0)
    codes = np.rint(NOISE_STEPS_PER_OCTAVE * np.log2(ratio)) + NOISE_MIDDLE
    valid &= codes <= 255
    return np.where(valid, codes.clip(1, 255), 0).astype(np.uint8)


def decode_noise(
    codes: UInt8[np.ndarray, "*stack y x"], noise_scale: Float[np.ndarray, "*stack"]
) -> Float32[np.ndarray, "*stack y x"]:
    """Codes -> noise (1 sigma) in the unit of `noise_scale`; 0 becomes NaN."""
    noise = np.take(_noise_table(), codes)
    noise *= np.asarray(noise_scale, np.float32)[..., None, None]
    return noise


@cache
def _sinh_table() -> np.ndarray:
    """Flux in steps of `scale` for every code, in the order of the codes' unsigned bits."""
    codes = np.arange(65536, dtype=np.uint16).view(np.int16)
    table = (K * np.sinh(codes / K)).astype(np.float32)
    table[codes == MISSING] = np.nan
    return table


@cache
def _noise_table() -> np.ndarray:
    """Noise in units of `noise_scale` for every code."""
    table = np.exp2((np.arange(256) - NOISE_MIDDLE) / NOISE_STEPS_PER_OCTAVE).astype(np.float32)
    table[0] = np.nan
    return table
