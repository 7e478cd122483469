"""Several tiles' planes of one band of a patch, made one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int16, UInt8

from jaisp.store.layout import Flag

INTERPOLATED = int(Flag.INTERPOLATED)
Combine = Literal["margin", "inverse_variance"]


@dataclass(frozen=True)
class Planes:
    """One band of one patch.

    flux, noise: nJy a pixel (or the tile's units a pixel when uncalibrated); NaN where missing.
    flags: bits of `jaisp.store.layout.Flag`. margin: arcsec to the tile's nearest edge, negative
    outside.
    """

    flux: Float32[np.ndarray, "y x"]
    noise: Float32[np.ndarray, "y x"]
    flags: UInt8[np.ndarray, "y x"]
    margin: Float32[np.ndarray, "y x"]


def combine(
    tiles: Sequence[Planes], how: Combine = "margin"
) -> tuple[Planes, Int16[np.ndarray, "y x"]]:
    """The planes, and which tile gave each pixel, or most of it (−1: no valid one).

    margin: each pixel from the tile in which it lies deepest, among those where it is valid.
    inverse_variance: the mean of all valid ones with weights 1 / noise²; flags are joined. What
    was interpolated over bad pixels counts only where no tile has better.
    """
    if len(tiles) == 1:
        return tiles[0], np.isfinite(tiles[0].flux).astype(np.int16) - np.int16(1)
    shape = tiles[0].flux.shape
    result = Planes(
        np.full(shape, np.nan, np.float32),
        np.full(shape, np.nan, np.float32),
        np.full(shape, Flag.EDGE, np.uint8),
        np.full(shape, -np.inf, np.float32),
    )
    source = np.full(shape, -1, np.int16)
    best = np.zeros(shape, np.float32)
    add = _lay if how == "margin" else _average
    for number, tile in enumerate(tiles):
        add(
            tile.flux, tile.noise, tile.flags, tile.margin, number,
            result.flux, result.noise, result.flags, result.margin, source, best,
        )  # fmt: skip
    return result, source


@numba.njit(cache=True, nogil=True)
@no_type_check
def _lay(flux, noise, flags, margin, number, to_flux, to_noise, to_flags, to_margin, source, best):
    for i in range(flux.shape[0]):
        for j in range(flux.shape[1]):
            valid = np.isfinite(flux[i, j])
            held = source[i, j] >= 0
            if (valid and not held) or (valid == held and margin[i, j] > to_margin[i, j]):
                to_flux[i, j] = flux[i, j]
                to_noise[i, j] = noise[i, j]
                to_flags[i, j] = flags[i, j]
                to_margin[i, j] = margin[i, j]
                if valid:
                    source[i, j] = number


@numba.njit(cache=True, nogil=True)
@no_type_check
def _average(
    flux, noise, flags, margin, number, to_flux, to_noise, to_flags, to_margin, source, best
):
    for i in range(flux.shape[0]):
        for j in range(flux.shape[1]):
            deeper = margin[i, j] > to_margin[i, j]
            if deeper:
                to_margin[i, j] = margin[i, j]
            if not np.isfinite(flux[i, j]):
                if source[i, j] < 0 and deeper:
                    to_flags[i, j] = flags[i, j]
                continue
            weight = 1 / np.float64(noise[i, j]) ** 2
            held = source[i, j] >= 0
            interpolated = flags[i, j] & INTERPOLATED
            if held and interpolated > to_flags[i, j] & INTERPOLATED:
                continue
            if not held or interpolated < to_flags[i, j] & INTERPOLATED:
                best[i, j] = 0
                to_flux[i, j] = flux[i, j]
                to_noise[i, j] = noise[i, j]
                to_flags[i, j] = flags[i, j]
            else:
                sofar = 1 / np.float64(to_noise[i, j]) ** 2
                total = sofar + weight
                to_flux[i, j] += (flux[i, j] - to_flux[i, j]) * (weight / total)
                to_noise[i, j] = total**-0.5
                to_flags[i, j] |= flags[i, j]
            if weight > best[i, j]:
                best[i, j] = weight
                source[i, j] = number
