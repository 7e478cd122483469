"""Two views of the same sky, cropped independently, and which of their tokens match.

The grid of tokens is laid anew for each pair, displaced by a fraction of a token in both views
alike: a source lies anywhere on its token, not where the patch's own grid happens to have it. With
`train.dither` it is displaced by parts of a pixel, too, and the pixels with it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Real
from torch import Tensor
from torch.nn.functional import conv2d

from jaisp.model.inputs import asinh
from jaisp.store.layout import PLANES, Flag
from jaisp.train.dither import MARGIN
from jaisp.train.patches import Codes, Patches
from jaisp.train.weight import of_wings, token_snr, token_weight

# A degraded copy gets up to this much noise, in units of its own, and this much blur, in pixels.
MOST_NOISE, MOST_BLUR = 2.0, 1.5


@dataclass(frozen=True)
class Degradation:
    """What is done to a copy: noise in units of its own, blur (1 σ) in pixels, the noise's seed."""

    noise: float
    blur: float
    seed: int

    def correlation(self, before: Float32[np.ndarray, " band"]) -> Float32[np.ndarray, " band"]:
        """Noise of a token's sum over that of white noise: what is added is white, and blur
        leaves a sum as it is."""
        added = np.float32(self.noise**2)
        return np.sqrt((before**2 + added) / (1 + added))


@dataclass(frozen=True)
class Crops:
    """Views of one survey, still coded: planes [sample, band, y, x] and scales [sample, band].

    correlation: [sample, band], noise of a token's sum over that of white noise, in the view as
    it will be shown. shown: [sample, band], which bands are given. degradations: one a sample, or
    an empty list. fraction: [sample, 2], by which the views are yet to be displaced, in pixels, and
    then the planes have a margin for it (`jaisp.train.dither`).
    """

    survey: str
    codes: Codes
    correlation: Float32[Tensor, "sample band"]
    shown: Tensor
    degradations: list[Degradation]
    fraction: Float32[Tensor, "sample 2"] | None = None


@dataclass(frozen=True)
class Draw:
    """What a step is made of, still coded: it goes from a worker to the model's device.

    `patches` are those of the whole step, views and places those of this rank's part of it.
    """

    kind: str
    patches: list[int]
    first: Crops
    second: Crops
    first_place: Tensor
    second_place: Tensor

    @property
    def name(self) -> str:
        """Kind and surveys, as the history counts them."""
        surveys = sorted({self.first.survey, self.second.survey})
        return f"{self.kind}:{'+'.join(surveys)}"


@dataclass(frozen=True)
class Views:
    """A batch of views of one survey: `inputs` [sample, band, 3, y, x] of all its bands.

    correlation: [sample, band], noise of a token's sum over that of white noise.
    """

    survey: str
    inputs: Tensor
    correlation: Tensor


@dataclass(frozen=True)
class Batch:
    """Pairs of views. `first_place` and `second_place` are the places of matching tokens among
    the flattened tokens (sample, row, column) of each side; `name` is kind and surveys."""

    name: str
    patches: list[int]
    first: Views
    second: Views
    first_place: Tensor
    second_place: Tensor
    weight: Tensor


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


def draw_phase(rng: np.random.Generator, pixels: tuple[int, ...]) -> Real[np.ndarray, "2"]:
    """Displacement of the grid in rows and columns, 0 to below 1 token: whole pixels of all views,
    of which a token has `pixels`."""
    steps = math.gcd(*pixels)
    return rng.integers(0, steps, size=2) / steps


def draw_dither(
    rng: np.random.Generator, pixels: tuple[int, ...], chance: float
) -> Real[np.ndarray, "2"]:
    """A further displacement, with this chance: anywhere within a step of `draw_phase`."""
    within = rng.uniform(0, 1, size=2) / math.gcd(*pixels)
    return within * (rng.random() < chance)


def cut(
    codes: Codes, corner: Real[np.ndarray, "2"], crop: int, n: int, turn: int, margin: int = 0
) -> dict[str, np.ndarray]:
    """A turned crop of a patch's planes, and its scales.

    corner: first row and column, in tokens of `n` pixels; to the nearest pixel. margin: pixels
    more on every side; beyond the patch they are missing.
    """
    y, x = np.rint(np.asarray(corner) * n).astype(int) - margin
    side = crop * n + 2 * margin
    return {
        name: turn_plane(_window(name, tensor.numpy(), int(y), int(x), side), turn)
        if name in PLANES
        else tensor.numpy()
        for name, tensor in codes.items()
    }


def _window(name: str, planes: np.ndarray, y: int, x: int, side: int) -> np.ndarray:
    """A square of planes [band, y, x]; outside of them, missing."""
    inside = planes[:, max(y, 0) : y + side, max(x, 0) : x + side]
    if inside.shape[1:] == (side, side):
        return inside
    beyond = [
        (max(-first, 0), max(first + side - length, 0))
        for first, length in zip((y, x), planes.shape[1:], strict=True)
    ]
    flag = int(Flag.EDGE) if name == "mask" else 0
    return np.pad(inside, [(0, 0), *beyond], constant_values=flag)


def turned_fraction(corner: Real[np.ndarray, "2"], n: int, turn: int) -> Float32[np.ndarray, "2"]:
    """What `cut` leaves of a corner's place, ± ½ pixel, in rows and columns of the turned crop."""
    place = np.asarray(corner, np.float64) * n
    y, x = place - np.rint(place)
    for _ in range(turn % 4):
        y, x = -x, y
    return np.array([x, y] if turn >= 4 else [y, x], np.float32)


def stack_crops(
    survey: str,
    crops: list[dict[str, np.ndarray]],
    correlation: list[np.ndarray],
    shown: list[np.ndarray],
    degradations: list[Degradation],
    fractions: list[np.ndarray],
) -> Crops:
    """Crops of one survey as one batch."""
    codes = {name: torch.from_numpy(np.stack([c[name] for c in crops])) for name in crops[0]}
    factors, given = (torch.from_numpy(np.stack(each)) for each in (correlation, shown))
    fraction = torch.from_numpy(np.stack(fractions)) if fractions else None
    return Crops(survey, codes, factors, given, degradations, fraction)


def show(
    crops: Crops, patches: Patches, device: torch.device
) -> Float32[Tensor, "sample band 3 y x"]:
    """Network inputs, made on the device; bands that are not shown are missing everywhere."""
    inputs = patches.inputs(crops.codes, crops.survey, device, crops.fraction)
    inputs[(~crops.shown).nonzero(as_tuple=True)] = 0
    if not crops.degradations:
        return inputs
    return torch.stack(
        [degrade(view, worse) for view, worse in zip(inputs, crops.degradations, strict=True)]
    )


def draw_degradation(rng: np.random.Generator) -> Degradation:
    """How one copy is degraded."""
    noise, blur = rng.uniform(0, MOST_NOISE), rng.uniform(0, MOST_BLUR)
    return Degradation(float(noise), float(blur), int(rng.integers(2**62)))


def degrade(
    inputs: Float32[Tensor, "band 3 y x"], degradation: Degradation
) -> Float32[Tensor, "band 3 y x"]:
    """A blurred copy with white noise added, as a poorer instrument would see it."""
    signal, valid, depth = inputs.unbind(dim=1)
    share = _blurred(valid, degradation.blur)
    flux = _blurred(signal.sinh() * valid, degradation.blur) / torch.where(valid > 0, share, 1.0)
    # On the device: a CPU would be waited for.
    generator = torch.Generator(flux.device).manual_seed(degradation.seed)
    drawn = torch.randn(flux.shape, generator=generator, device=flux.device)
    flux = flux + degradation.noise * drawn
    total = math.hypot(1, degradation.noise)
    worse = torch.stack([asinh(flux / total), valid, depth + math.log(total)], dim=1)
    return torch.where(valid[:, None] > 0, worse, 0.0)


def _blurred(planes: Float32[Tensor, "band y x"], sigma: float) -> Float32[Tensor, "band y x"]:
    """Planes convolved with a Gaussian out to 4 sigma of the most; zero outside."""
    reach = math.ceil(4 * MOST_BLUR)
    place = torch.arange(-reach, reach + 1, dtype=torch.float32, device=planes.device)
    kernel = torch.exp(-0.5 * (place / max(sigma, 0.01)) ** 2)
    kernel = kernel / kernel.sum()
    blurred = conv2d(planes[:, None], kernel[None, None, :, None], padding=(reach, 0))
    return conv2d(blurred, kernel[None, None, None, :], padding=(0, reach))[:, 0]


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
    dither: float,
    interest: dict[int, Float32[np.ndarray, "row column"]],
    part: slice,
) -> Draw:
    """A pair of views of each of `numbers`; crops go where a patch's `interest` is.

    Only views of `part` of the numbers are made, but the choices are made for all of them: they
    are the same however a step is parted.
    """
    crops: tuple[list[dict], list[dict]] = ([], [])
    fractions: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    given: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    correlation: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    places: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    degradations: tuple[list[Degradation], list[Degradation]] = ([], [])
    pixels = patches.n[surveys[0]], patches.n[surveys[1]]
    margin = MARGIN if dither else 0
    own = range(len(numbers))[part]
    codes = {survey: patches.codes(numbers[part], survey) for survey in set(surveys)}
    for sample, number in enumerate(numbers):
        # A displaced grid has a row and a column of tokens less.
        whole = crop_corners(rng, interest[number][:-1, :-1], crop, shift)
        phase = draw_phase(rng, pixels)
        if dither:
            phase = phase + draw_dither(rng, pixels, dither)
        turn = int(rng.integers(8))
        both = matching(*whole, crop, turn)
        if kind == "bands":
            shown = split_bands(rng, patches.present[surveys[0]][number])
        else:
            shown = (
                keep_bands(rng, patches.present[surveys[0]][number], dropout),
                keep_bands(rng, patches.present[surveys[1]][number], dropout),
            )
        worse = draw_degradation(rng) if kind == "degraded" else None
        if sample not in own:
            continue
        place = own.index(sample)
        for side, survey in enumerate(surveys):
            corner, n = whole[side] + phase, pixels[side]
            crops[side].append(cut(codes[survey][place], corner, crop, n, turn, margin))
            if dither:
                fractions[side].append(turned_fraction(corner, n, turn))
            given[side].append(shown[side])
            correlation[side].append(patches.correlation[survey][number])
            places[side].append(both[side] + place * crop * crop)
        if worse is not None:
            degradations[1].append(worse)
            correlation[1][-1] = worse.correlation(correlation[1][-1])
    first, second = (
        stack_crops(surveys[k], crops[k], correlation[k], given[k], degradations[k], fractions[k])
        for k in (0, 1)
    )
    first_place, second_place = (torch.from_numpy(np.concatenate(side)) for side in places)
    return Draw(kind, numbers, first, second, first_place, second_place)


def show_views(
    draw: Draw,
    patches: Patches,
    sky_weight: float,
    wing_weight: float,
    device: torch.device,
) -> Batch:
    """The batch that a draw describes, decoded and degraded on the device."""
    sides = draw.first, draw.second
    first, second = (
        Views(crops.survey, show(crops, patches, device), crops.correlation.to(device))
        for crops in sides
    )
    first_place, second_place = draw.first_place.to(device), draw.second_place.to(device)
    # Of what the views show: a band that is left out, or noise that was added, counts.
    first_snr, second_snr = (
        token_snr(views.inputs, views.correlation, patches.n[views.survey])
        for views in (first, second)
    )
    snr = first_snr.flatten()[first_place], second_snr.flatten()[second_place]
    weight = token_weight(*snr, sky_weight)
    if wing_weight < 1:
        poorer = torch.zeros_like(first_snr).flatten()
        poorer[first_place] = torch.minimum(*snr)
        seen = torch.zeros_like(poorer, dtype=torch.bool)
        seen[first_place] = True
        wings = of_wings(poorer.view_as(first_snr), seen.view_as(first_snr)).flatten()
        weight = torch.where(wings[first_place], wing_weight * weight, weight)
    return Batch(draw.name, draw.patches, first, second, first_place, second_place, weight)
