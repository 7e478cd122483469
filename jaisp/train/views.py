"""Two views of the same sky, cropped independently, and which of their tokens match.

The grid of tokens is laid anew for each pair, displaced by a fraction of a token in both views
alike: a source lies anywhere on its token, not where the patch's own grid happens to have it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Real
from scipy.ndimage import gaussian_filter
from torch import Tensor

from jaisp.train.patches import Patches, Planes, information, token_snr

# A degraded copy gets up to this much noise, in units of its own, and this much blur, in pixels.
MOST_NOISE, MOST_BLUR = 2.0, 1.5


@dataclass(frozen=True)
class Views:
    """A batch of views of one survey: `inputs` [sample, band, 3, y, x] of all its bands."""

    survey: str
    inputs: Tensor


@dataclass(frozen=True)
class Batch:
    """Pairs of views. `first_place` and `second_place` are the places of matching tokens among
    the flattened tokens (sample, row, column) of each side."""

    kind: str
    patches: list[int]
    first: Views
    second: Views
    first_place: Tensor
    second_place: Tensor
    weight: Tensor

    @property
    def name(self) -> str:
        """Kind and surveys, as the history counts them."""
        surveys = sorted({self.first.survey, self.second.survey})
        return f"{self.kind}:{'+'.join(surveys)}"


def crop_corners(
    rng: np.random.Generator,
    interest: Float32[np.ndarray, "row column"],
    crop: int,
    shift: int,
) -> tuple[Int[np.ndarray, "2"], Int[np.ndarray, "2"]]:
    """First row and column of two crops around a token drawn in proportion to `interest`.

    The second lies up to `shift` tokens from the first, each way; both are inside the patch and
    hold the token.
    """
    last = len(interest) - crop
    chances = interest.ravel().astype(np.float64)
    token = rng.choice(chances.size, p=chances / chances.sum())
    centre = np.array(np.unravel_index(token, interest.shape))
    first = np.clip(centre - rng.integers(0, crop, size=2), 0, last)
    second = first + rng.integers(-shift, shift + 1, size=2)
    second = np.clip(second, np.maximum(centre - crop + 1, 0), np.minimum(centre, last))
    return first, second


def matching(
    first: Int[np.ndarray, "2"], second: Int[np.ndarray, "2"], crop: int, turn: int
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Tokens that two crops share, row by row of the sky: their places in both, after `turn`.

    A place is row · crop + column. Crops that share nothing give empty arrays.
    """
    low = np.maximum(first, second)
    high = np.minimum(first, second) + crop
    rows, columns = (np.arange(a, max(a, b)) for a, b in zip(low, high, strict=True))
    tokens = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    # Where each token of an unturned crop comes to lie.
    turned = turn_plane(np.arange(crop * crop).reshape(crop, crop), turn).ravel()
    arrives = np.empty_like(turned)
    arrives[turned] = np.arange(crop * crop)
    in_first, in_second = (
        arrives[(tokens - corner) @ np.array([crop, 1])] for corner in (first, second)
    )
    return in_first, in_second


def turn_plane(plane: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight quarter turns and reflections of the last two axes."""
    turned = np.rot90(plane, turn % 4, axes=(-2, -1))
    return np.swapaxes(turned, -2, -1) if turn >= 4 else turned


def draw_phase(rng: np.random.Generator, pixels: tuple[int, int]) -> Real[np.ndarray, "2"]:
    """Displacement of the grid in rows and columns, 0 to below 1 token: whole pixels of both views,
    of which a token has `pixels`."""
    steps = math.gcd(*pixels)
    return rng.integers(0, steps, size=2) / steps


def cut(
    planes: Planes,
    corner: Real[np.ndarray, "2"],
    crop: int,
    n: int,
    turn: int,
    present: Bool[np.ndarray, " band"],
) -> Float32[np.ndarray, "band 3 y x"]:
    """Network inputs of a crop; bands that are not `present` are missing everywhere.

    corner: first row and column, in tokens of `n` pixels; whole pixels.
    """
    window = (slice(None), *window_of(corner, crop, n))
    signal = turn_plane(planes.signal[window], turn).astype(np.float32)
    depth = turn_plane(planes.depth[window], turn).astype(np.float32)
    valid = np.isfinite(signal) & present[:, None, None]
    inputs = (np.where(valid, signal, 0), valid, np.where(valid, depth, 0))
    return np.stack(inputs, axis=1, dtype=np.float32, casting="unsafe")


def window_of(
    corner: Real[np.ndarray, "2"], tokens: int | np.ndarray, n: int
) -> tuple[slice, slice]:
    """The pixels of `tokens` tokens in rows and columns, from a corner on."""
    low = np.rint(np.asarray(corner) * n).astype(int)
    high = low + np.broadcast_to(tokens, 2) * n
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def token_weights(
    planes: Sequence[Planes],
    pixels: tuple[int, int],
    corners: Sequence[Real[np.ndarray, "2"]],
    crop: int,
    sky_weight: float,
) -> Float32[np.ndarray, " token"]:
    """Weight of each token that two crops share, in the order of `matching`."""
    low = np.maximum(*corners)
    shared = np.rint(np.minimum(*corners) + crop - low).astype(int)
    snr = [
        token_snr(plane.signal[(slice(None), *window_of(low, shared, n))], n)
        for plane, n in zip(planes, pixels, strict=True)
    ]
    return information(*snr, sky_weight).ravel()


def degrade(
    inputs: Float32[np.ndarray, "band 3 y x"], rng: np.random.Generator
) -> Float32[np.ndarray, "band 3 y x"]:
    """A blurred copy with white noise added, as a poorer instrument would see it."""
    signal, valid, depth = np.moveaxis(inputs, 1, 0)
    noise, blur = rng.uniform(0, MOST_NOISE), rng.uniform(0, MOST_BLUR)
    good = valid > 0
    flux = gaussian_filter(np.sinh(signal) * valid, (0, blur, blur), mode="constant")
    share = gaussian_filter(valid, (0, blur, blur), mode="constant")
    flux = np.divide(flux, share, out=np.zeros_like(flux), where=good)
    flux += noise * rng.standard_normal(flux.shape, dtype=np.float32)
    total = np.hypot(1, noise)
    worse = np.stack([np.arcsinh(flux / total), valid, depth + np.log(total)], axis=1)
    return np.where(good[:, None], worse, 0).astype(np.float32)


def keep_bands(
    rng: np.random.Generator, present: Bool[np.ndarray, " band"], dropout: float
) -> Bool[np.ndarray, " band"]:
    """Which of the bands present a view shows: each is left out with the chance `dropout`, but
    one stays."""
    shown = present & (rng.random(len(present)) >= dropout)
    shown[rng.choice(np.flatnonzero(present))] = True
    return shown


def split_bands(
    rng: np.random.Generator, present: Bool[np.ndarray, " band"]
) -> tuple[Bool[np.ndarray, " band"], Bool[np.ndarray, " band"]]:
    """Two disjoint sets of the two or more bands present, neither empty."""
    order = rng.permutation(np.flatnonzero(present))
    first = np.zeros(len(present), bool)
    first[order[: rng.integers(1, len(order))]] = True
    return first, present & ~first


def draw_views(
    patches: Patches,
    numbers: list[int],
    kind: str,
    surveys: tuple[str, str],
    rng: np.random.Generator,
    *,
    crop: int,
    shift: int,
    dropout: float,
    sky_weight: float,
    interest: dict[int, Float32[np.ndarray, "row column"]],
) -> Batch:
    """A pair of views of each of `numbers`; crops go where a patch's `interest` is."""
    inputs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    places: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    weights = []
    pixels = patches.n[surveys[0]], patches.n[surveys[1]]
    for sample, number in enumerate(numbers):
        # A displaced grid has a row and a column of tokens less.
        whole = crop_corners(rng, interest[number][:-1, :-1], crop, shift)
        phase = draw_phase(rng, pixels)
        corners = [corner + phase for corner in whole]
        turn = int(rng.integers(8))
        both = matching(*whole, crop, turn)
        planes = [patches.planes(number, survey) for survey in surveys]
        if kind == "bands":
            shown = split_bands(rng, patches.present[surveys[0]][number])
        else:
            first, second = (
                keep_bands(rng, patches.present[survey][number], dropout) for survey in surveys
            )
            shown = first, second
        for side in (0, 1):
            view = cut(planes[side], corners[side], crop, pixels[side], turn, shown[side])
            if kind == "degraded" and side == 1:
                view = degrade(view, rng)
            inputs[side].append(view)
            places[side].append(both[side] + sample * crop * crop)
        weights.append(token_weights(planes, pixels, corners, crop, sky_weight))
    first_views, second_views = (
        Views(survey, torch.from_numpy(np.stack(side)))
        for survey, side in zip(surveys, inputs, strict=True)
    )
    first_place, second_place = (torch.from_numpy(np.concatenate(side)) for side in places)
    weight = torch.from_numpy(np.concatenate(weights))
    return Batch(kind, numbers, first_views, second_views, first_place, second_place, weight)
