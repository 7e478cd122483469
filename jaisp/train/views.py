"""Two views of the same sky, cropped independently, and which of their tokens match.

The grid of tokens is laid anew for each pair, displaced by a fraction of a token in both views
alike: a source lies anywhere on its token, not where the patch's own grid happens to have it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Real
from scipy.ndimage import gaussian_filter
from torch import Tensor

from jaisp.train.patches import Patches, Planes, token_snr, token_weight

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
) -> Float32[Tensor, "band 3 y x"]:
    """Network inputs of a crop; bands that are not `present` are missing everywhere.

    corner: first row and column, in tokens of `n` pixels; whole pixels.
    """
    y, x = np.rint(np.asarray(corner) * n).astype(int)
    window = (slice(None), slice(y, y + crop * n), slice(x, x + crop * n))
    signal, depth = (
        torch.from_numpy(turn_plane(plane[window], turn).copy()).float()
        for plane in (planes.signal, planes.depth)
    )
    valid = signal.isfinite() & torch.from_numpy(present)[:, None, None]
    return torch.stack([torch.where(valid, p, 0.0) for p in (signal, valid.float(), depth)], dim=1)


def degrade(
    inputs: Float32[Tensor, "band 3 y x"], rng: np.random.Generator
) -> Float32[Tensor, "band 3 y x"]:
    """A blurred copy with white noise added, as a poorer instrument would see it."""
    signal, valid, depth = np.moveaxis(inputs.numpy(), 1, 0)
    noise, blur = rng.uniform(0, MOST_NOISE), rng.uniform(0, MOST_BLUR)
    good = valid > 0
    flux = gaussian_filter(np.sinh(signal) * valid, (0, blur, blur), mode="constant")
    share = gaussian_filter(valid, (0, blur, blur), mode="constant")
    flux = np.divide(flux, share, out=np.zeros_like(flux), where=good)
    flux += noise * rng.standard_normal(flux.shape, dtype=np.float32)
    total = np.hypot(1, noise)
    worse = np.stack([np.arcsinh(flux / total), valid, depth + np.log(total)], axis=1)
    return torch.from_numpy(np.where(good[:, None], worse, 0).astype(np.float32))


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
    inputs: tuple[list[Tensor], list[Tensor]] = ([], [])
    places: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
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
            shown = (
                keep_bands(rng, patches.present[surveys[0]][number], dropout),
                keep_bands(rng, patches.present[surveys[1]][number], dropout),
            )
        for side in (0, 1):
            view = cut(planes[side], corners[side], crop, pixels[side], turn, shown[side])
            if kind == "degraded" and side == 1:
                view = degrade(view, rng)
            inputs[side].append(view)
            places[side].append(both[side] + sample * crop * crop)
    first, second = (
        Views(survey, torch.stack(side)) for survey, side in zip(surveys, inputs, strict=True)
    )
    first_place, second_place = (torch.from_numpy(np.concatenate(side)) for side in places)
    # Of what the views show: a band that is left out, or noise that was added, counts.
    weight = token_weight(
        token_snr(first.inputs, pixels[0]).flatten()[first_place],
        token_snr(second.inputs, pixels[1]).flatten()[second_place],
        sky_weight,
    )
    return Batch(kind, numbers, first, second, first_place, second_place, weight)
