"""Resampling onto finer pixels, as a mosaic of coarse detector pixels is served."""

import numpy as np
from jaxtyping import Float32

KERNEL_HALF_WIDTH = 3


def lanczos(plane: Float32[np.ndarray, "y x"], factor: int) -> Float32[np.ndarray, "fine_y fine_x"]:
    """Values of a Lanczos-3 interpolation on pixels `factor` times smaller.

    KERNEL_HALF_WIDTH pixels of each side of the plane are used up.
    """
    half = KERNEL_HALF_WIDTH
    taps = np.arange(-half, half + 1)
    for axis in (0, 1):
        length = plane.shape[axis] - 2 * half
        shape = [*plane.shape]
        shape[axis] = length * factor
        fine = np.zeros(shape, np.float32)
        rows = np.moveaxis(plane, axis, 0)
        target = np.moveaxis(fine, axis, 0)
        for phase in range(factor):
            distance = (phase + 0.5) / factor - 0.5 - taps
            weight = np.sinc(distance) * np.sinc(distance / half) * (np.abs(distance) < half)
            weight = (weight / weight.sum()).astype(np.float32)
            for tap, share in zip(taps, weight, strict=True):
                if share != 0.0:
                    target[phase::factor] += share * rows[half + tap : half + tap + length]
        plane = fine
    return plane
