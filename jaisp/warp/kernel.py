"""Lanczos interpolation of one image along a pixel map, with noise and flags, in one pass.

Imports numba, which takes a second: stages import it late.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from jaisp.store.layout import Flag
from jaisp.warp.pixel_map import PixelMap

UNUSABLE = int(Flag.BAD | Flag.COSMIC_RAY | Flag.EDGE)
EDGE = int(Flag.EDGE)
BAD = int(Flag.BAD)
INTERPOLATED = int(Flag.INTERPOLATED)
# A pixel whose missing neighbours hold at most this share of the kernel's absolute weight is
# interpolated from the others. A single bad pixel 1.5 px away along a row holds 3.5 %; one within
# 1 px holds more.
LARGEST_MISSING_SHARE = 0.05
PHASES = 512
# Numbers that a vector holds, for each number of taps.
LANES = {6: 8, 10: 16}
CONTRACT = ("contract",)


@cache
def lanczos_table(order: int) -> Float32[np.ndarray, "phase tap"]:
    """Lanczos weights for sub-pixel phases 0…1, at floor(x) + 1 - order … floor(x) + order, and
    zeros up to the length of a vector.

    Lanczos' own weights (Duchon 1979, J. Appl. Meteor. 18, 1016) reproduce not even a constant;
    divided by their sum, still no slope, so that on a grid of nearly the same pixel a star's flux
    ripples by 1 % and its centroid by 1 mas. Each row here is the nearest set of weights (least
    squares) that reproduces every polynomial up to the degree `order`: the conditions of Strang &
    Fix (1971). It keeps as much noise and brings both errors down five- to a hundredfold.
    """
    phase = np.linspace(0.0, 1.0, PHASES + 1)[:, None]
    distance = np.arange(1 - order, order + 1)[None, :] - phase
    weight = np.where(np.abs(distance) < order, np.sinc(distance) * np.sinc(distance / order), 0.0)
    power = np.arange(order + 1)
    moments = (distance[:, None, :] / order) ** power[None, :, None]
    wanted = (power == 0).astype(float)
    excess = np.einsum("pmt,pt->pm", moments, weight) - wanted
    weight -= np.einsum("ptm,pm->pt", np.linalg.pinv(moments), excess)
    # Whole-pixel phases must give back the pixel itself, without rounding.
    weight[np.abs(weight) < 1e-12] = 0.0
    spare = LANES[2 * order] - 2 * order
    return np.pad(weight, ((0, 0), (0, spare))).astype(np.float32)


@dataclass(frozen=True)
class Resampled:
    """One image on the output's pixels.

    flux, noise: NaN where missing. flags: bits of `jaisp.store.layout.Flag`.
    """

    flux: Float32[np.ndarray, "row column"]
    noise: Float32[np.ndarray, "row column"]
    flags: UInt8[np.ndarray, "row column"]


def resample(
    flux: Float32[np.ndarray, "v u"],
    noise: Float32[np.ndarray, "v u"],
    flags: UInt8[np.ndarray, "v u"],
    positions: PixelMap,
    *,
    order: int = 3,
    unit: float = 1.0,
    origin: tuple[int, int] = (0, 0),
    wanted: Bool[np.ndarray, "row column"] | None = None,
    threads: int = 1,
) -> Resampled:
    """Interpolate a part of an image, from its pixel `origin` (row, column) on.

    A pixel flagged BAD, COSMIC_RAY or EDGE has no part in any sum. Where such pixels hold little
    of the kernel's weight the rest is renormalised and flagged INTERPOLATED; elsewhere the result
    is NaN with their flags. Positions whose kernel leaves the part are NaN and EDGE. SATURATED
    spreads over the kernel's footprint. Noise is interpolated linearly between the finite ones of
    the four nearest pixels; without one the pixel is BAD. Flux and noise are multiplied by `unit`
    and by the area of the output pixel: interpolation keeps surface brightness. Where a pixel is
    not `wanted` (default: all are), nothing is computed: NaN and EDGE.
    """
    rows, columns = positions.x.shape[0], int(positions.starts[-1])
    result = Resampled(
        np.empty((rows, columns), np.float32),
        np.empty((rows, columns), np.float32),
        np.empty((rows, columns), np.uint8),
    )
    table = lanczos_table(order)
    # Whole vectors are loaded, which reach beyond the kernel's taps: a margin of zeros.
    clean = np.empty((flux.shape[0], flux.shape[1] + table.shape[1] - 2 * order), np.float32)
    near = spread(flags, order) if _clean(flux, flags, clean) else flags
    if wanted is None:
        wanted = np.ones((rows, columns), bool)
    arguments = (
        clean, noise, flags, near, (0,) * (2 * order), table,
        positions.x, positions.y, positions.area, positions.starts, origin, unit,
        wanted, result.flux, result.noise, result.flags,
    )  # fmt: skip
    if threads == 1:
        _resample(*arguments, 0, rows)
        return result
    bounds = np.linspace(0, rows, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: _resample(*arguments, *part), pairwise(bounds)))
    return result


def measure_margin(
    positions: PixelMap, shape: tuple[int, int], pixel: float = 1.0
) -> Float32[np.ndarray, "row column"]:
    """From each position to the nearest edge of an input of `shape` whose pixels are `pixel` wide.

    Negative outside, −inf where the map leads nowhere.
    """
    margin = np.empty((positions.x.shape[0], int(positions.starts[-1])), np.float32)
    steps = np.arange(margin.shape[1], dtype=float)
    _measure_margin(
        positions.x, positions.y, positions.starts, steps, *map(float, shape), pixel, margin
    )
    return margin


def nearest(
    flags: UInt8[np.ndarray, "v u"],
    x: Float64[np.ndarray, "row column"],
    y: Float64[np.ndarray, "row column"],
) -> UInt8[np.ndarray, "row column"]:
    """The flags of the pixel that each position falls in; EDGE outside the image."""
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x < flags.shape[1] - 0.5) & (y >= -0.5) & (y < flags.shape[0] - 0.5)
    u, v = (np.floor(np.where(inside, axis, 0) + 0.5).astype(int) for axis in (x, y))
    return np.where(inside, flags[v, u], np.uint8(EDGE))


def spread(flags: UInt8[np.ndarray, "v u"], reach: int) -> UInt8[np.ndarray, "v u"]:
    """OR of the flags within `reach` pixels, in a square."""
    spread = flags.copy()
    for axis in (0, 1):
        source = spread.copy()
        for step in range(1, reach + 1):
            low = [slice(None)] * 2
            high = [slice(None)] * 2
            low[axis], high[axis] = slice(None, -step), slice(step, None)
            spread[tuple(high)] |= source[tuple(low)]
            spread[tuple(low)] |= source[tuple(high)]
    return spread


@intrinsic
def _window_sum(typing, image, first, stride, taps, table, row_x, part_x, row_y, part_y):
    """Σ_mn w_y[m] w_x[n] image[first + m · stride + n], in vectors of a whole row of taps.

    Weights lie `part` between the rows `row` and row + 1 of the table, whose rows are as long as
    the vectors. Written in LLVM's vectors because its vectoriser leaves this loop scalar: at half
    the speed.
    """
    count = len(taps)
    lanes = LANES[count]
    vector = ir.VectorType(ir.FloatType(), lanes)
    integer = ir.IntType(32)
    signature = types.float32(
        image, types.int64, types.int64, taps, table,
        types.int64, types.float32, types.int64, types.float32,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        image, first, stride, _, table, row_x, part_x, row_y, part_y = arguments
        pixels, weights = (
            cgutils.create_struct_proxy(signature.args[n])(context, builder, array).data
            for n, array in ((0, image), (4, table))
        )

        def load(base: Any, index: Any) -> Any:
            pointer = builder.bitcast(builder.gep(base, [index]), vector.as_pointer())
            return builder.load(pointer, align=4)

        def everywhere(scalar: Any) -> Any:
            empty = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(empty, scalar, integer(0))
            zeros = ir.Constant(ir.VectorType(integer, lanes), [0] * lanes)
            return builder.shuffle_vector(one, empty, zeros)

        def weight(row: Any, part: Any) -> Any:
            at = builder.mul(row, ir.IntType(64)(lanes))
            low = load(weights, at)
            high = load(weights, builder.add(at, ir.IntType(64)(lanes)))
            step = builder.fmul(everywhere(part), builder.fsub(high, low), CONTRACT)
            return builder.fadd(low, step, CONTRACT)

        along_x, along_y = weight(row_x, part_x), weight(row_y, part_y)
        columns = None
        for m in range(count):
            weight_y = everywhere(builder.extract_element(along_y, integer(m)))
            term = builder.fmul(weight_y, load(pixels, first), CONTRACT)
            columns = term if columns is None else builder.fadd(columns, term, CONTRACT)
            first = builder.add(first, stride)
        product = builder.fmul(columns, along_x)
        total = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.FloatType(), [ir.FloatType(), vector]),
            f"llvm.vector.reduce.fadd.v{lanes}f32",
        )
        return builder.call(total, [ir.FloatType()(0.0), product], fastmath=("reassoc",))

    return signature, codegen


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def _resample(
    clean, noise, flags, near, taps, table, map_x, map_y, map_area, starts, origin, unit,
    wanted, out_flux, out_noise, out_flags, first_row, last_row,
):  # fmt: skip
    """`resample` for some rows. taps: a tuple as long as the kernel, for the compiler to know."""
    count = len(taps)
    before = count // 2 - 1
    row_0, column_0 = origin
    rows, columns = noise.shape
    highest_x, highest_y = columns + before - count, rows + before - count
    stride = clean.shape[1]
    image, weights = clean.ravel(), table.ravel()
    last_phase = table.shape[0] - 2
    length = out_flux.shape[1]
    along_x, along_y, scale = np.empty(length), np.empty(length), np.empty(length, np.float32)
    steps = np.arange(length).astype(np.float64)
    for i in range(first_row, last_row):
        _lay_row(map_x[i], map_y[i], map_area[i], starts, steps, unit, along_x, along_y, scale)
        row_flux, row_noise, row_flags = out_flux[i], out_noise[i], out_flags[i]
        for j in range(length):
            row_flux[j] = np.nan
            row_noise[j] = np.nan
            row_flags[j] = EDGE
            if not wanted[i, j]:
                continue
            x, y = along_x[j] - column_0, along_y[j] - row_0
            left, low = np.floor(x), np.floor(y)
            # Written so that a NaN is outside too.
            if not (left >= before and low >= before and left <= highest_x and low <= highest_y):
                continue
            u, v = np.int64(left), np.int64(low)
            right, up = x - left, y - low
            # Linear between the rows of the table: 5e-6 from the exact kernel.
            place_x, place_y = right * (last_phase + 1), up * (last_phase + 1)
            row_x = min(np.int64(place_x), last_phase)
            row_y = min(np.int64(place_y), last_phase)
            part_x, part_y = np.float32(place_x - row_x), np.float32(place_y - row_y)
            first = (v - before) * stride + u - before
            value = _window_sum(image, first, stride, taps, weights, row_x, part_x, row_y, part_y)
            # The pixel that the position falls in.
            at_u, at_v = u + (right >= 0.5), v + (up >= 0.5)
            found = near[at_v, at_u]
            if found & UNUSABLE != 0:
                known, missing = _missing(
                    flags[v - before : v - before + count, u - before : u - before + count],
                    table[row_x] + part_x * (table[row_x + 1] - table[row_x]),
                    table[row_y] + part_y * (table[row_y + 1] - table[row_y]),
                    flags[at_v, at_u],
                )
                value = value / known
                found = (found & ~UNUSABLE) | missing
            sigma = _between(noise, v, u, np.float32(up), np.float32(right))
            if not np.isfinite(sigma) and np.isfinite(value):
                found |= BAD
            row_flags[j] = found
            if found & UNUSABLE == 0:
                row_flux[j] = value * scale[j]
                row_noise[j] = sigma * scale[j]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _clean(flux, flags, clean):
    """Copy the usable pixels, zero for others; whether any pixel has a flag."""
    flagged = False
    for i in range(flux.shape[0]):
        for j in range(flux.shape[1]):
            flag = flags[i, j]
            flagged |= flag != 0
            clean[i, j] = flux[i, j] if flag & UNUSABLE == 0 else np.float32(0)
        for j in range(flux.shape[1], clean.shape[1]):
            clean[i, j] = 0
    return flagged


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def _lay_row(map_x, map_y, map_area, starts, steps, unit, x, y, scale):
    """Positions along one row, and what a pixel's flux is multiplied by."""
    for piece in range(starts.size - 1):
        x0, x1, x2, x3 = map_x[piece]
        y0, y1, y2, y3 = map_y[piece]
        a0, a1, a2, a3 = map_area[piece]
        start, stop = starts[piece], starts[piece + 1]
        part_x, part_y, part_scale = x[start:stop], y[start:stop], scale[start:stop]
        for step in range(part_x.size):
            t = steps[step]
            part_x[step] = x0 + t * (x1 + t * (x2 + t * x3))
            part_y[step] = y0 + t * (y1 + t * (y2 + t * y3))
            part_scale[step] = unit * (a0 + t * (a1 + t * (a2 + t * a3)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _measure_margin(map_x, map_y, starts, steps, rows, columns, pixel, margin):
    for i in range(margin.shape[0]):
        for piece in range(starts.size - 1):
            x0, x1, x2, x3 = map_x[i, piece]
            y0, y1, y2, y3 = map_y[i, piece]
            # A part of its own: indices that run from 0 on are known to need no check.
            part = margin[i, starts[piece] : starts[piece + 1]]
            for j in range(part.size):
                t = steps[j]
                x = x0 + t * (x1 + t * (x2 + t * x3))
                y = y0 + t * (y1 + t * (y2 + t * y3))
                across = columns / 2 - abs(x + 0.5 - columns / 2)
                along = rows / 2 - abs(y + 0.5 - rows / 2)
                nearest = across if across < along else along
                known = (across == across) & (along == along)
                part[j] = np.float32(nearest * pixel) if known else np.float32(-np.inf)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
@no_type_check
def _between(noise, v, u, up, right):
    """Linear between the finite ones of four pixels; NaN if none is."""
    low = noise[v, u] + right * (noise[v, u + 1] - noise[v, u])
    high = noise[v + 1, u] + right * (noise[v + 1, u + 1] - noise[v + 1, u])
    total = low + up * (high - low)
    if np.isfinite(total):
        return total
    total = np.float32(0)
    known = np.float32(0)
    for m in range(2):
        for n in range(2):
            value = noise[v + m, u + n]
            weight = (up if m else 1 - up) * (right if n else 1 - right)
            if np.isfinite(value):
                total += weight * value
                known += weight
    return total / known if known > 0 else np.float32(np.nan)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _missing(flags, weight_x, weight_y, at_centre):
    """The weight of usable pixels (NaN: too little), and the flags of the result."""
    known = np.float32(0)
    share = np.float32(0)
    missing_share = np.float32(0)
    missing = 0
    for m in range(flags.shape[0]):
        for n in range(flags.shape[1]):
            weight = weight_y[m] * weight_x[n]
            flag = flags[m, n] & UNUSABLE
            share += abs(weight)
            if flag == 0:
                known += weight
            elif weight != 0:
                missing |= flag
                missing_share += abs(weight)
    if missing == 0:
        return np.float32(1), 0
    if at_centre & UNUSABLE == 0 and missing_share <= LARGEST_MISSING_SHARE * share:
        return known, INTERPOLATED
    return np.float32(np.nan), missing
