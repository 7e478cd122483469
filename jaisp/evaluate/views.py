"""What the encoders are shown: two crops around each patch, displaced by whole tokens.

Both hold the patch and `edge_tokens` more on each side, about an encoder's reach, as far as the
sky there is in the same split or in none; of each, the patch's own tokens count, so that every
piece of sky counts once. Of two surveys, the one first by name is shown the first crop, the other
the second. The crops of a patch are displaced by `crop_tokens` in rows and in columns, to sides
drawn for each patch: a token's place in its crop tells nothing about the place of its partner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int

from jaisp.evaluate.mosaic import Mosaic, Surroundings
from jaisp.evaluate.sources import Catalogue, usable
from jaisp.progress import track
from jaisp.store.reader import Store

FIRST, SECOND = "first", "second"
VALID_SHARE = 0.5


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns (sample, band, y, x) into tokens (sample, dimension, row, column)."""

    def encode(self, flux: Any, noise: Any, mask: Any, *, survey: str, bands: Sequence[str]) -> Any:
        """Shared tokens of a batch of views of one survey."""


@dataclass(frozen=True)
class Side:
    """Tokens of one survey on one of the crops of all patches.

    vectors: by encoder. valid: the patch's own tokens with usable pixels on half their area, in
    any band.
    """

    vectors: dict[str, Float[np.ndarray, "patch row column dimension"]]
    valid: Bool[np.ndarray, "patch row column"]


@dataclass(frozen=True)
class EncodedSky:
    """Patches as the encoders see them.

    corners: by crop, row and column at which it begins, from the patch's first token. sides: by
    survey and crop. bands: by survey. A "survey" may be one with some of its bands withheld, by a
    name of its own.
    """

    cells: list[str]
    catalogues: list[Catalogue]
    corners: dict[str, Int[np.ndarray, "patch 2"]]
    sides: dict[tuple[str, str], Side]
    bands: dict[str, list[str]]
    token_arcsec: float

    @property
    def surveys(self) -> list[str]:
        """Names of the surveys, sorted."""
        return sorted(self.bands)


def crop_of(survey: str, other: str) -> str:
    """Which crop a survey is shown where it meets another."""
    return FIRST if survey < other else SECOND


def crop_corners(
    numbers: Int[np.ndarray, " patch"], crop_tokens: int, edge_tokens: int, seed: int
) -> dict[str, Int[np.ndarray, "patch 2"]]:
    """First row and column of both crops of each patch, `crop_tokens` apart.

    Counted from the patch's first token: −edge − crop and −edge, or the reverse.
    """
    sides = [np.random.default_rng([seed, int(n)]).integers(0, 2, size=2) for n in numbers]
    first = np.reshape(sides, (len(numbers), 2)) * crop_tokens
    return {FIRST: first - crop_tokens - edge_tokens, SECOND: -first - edge_tokens}


def encode_sky(
    store: Store,
    numbers: Int[np.ndarray, " patch"],
    catalogues: Sequence[Catalogue],
    encoders: Mapping[str, Encoder],
    crop_tokens: int,
    edge_tokens: int,
    seed: int,
    shown: Mapping[str, tuple[str, list[str]]] | None = None,
) -> EncodedSky:
    """Encode patches `numbers` in every survey that covers them, by every encoder.

    shown: by name, the survey and the bands that the encoders are given; default every survey,
    with all of its bands. A patch that a survey does not cover has no valid token there.
    """
    if shown is None:
        shown = {survey: (survey, store.bands(survey)) for survey in store.surveys}
    corners = crop_corners(numbers, crop_tokens, edge_tokens, seed)
    own = round(store.patch_arcsec / store.token_arcsec)
    margin = crop_tokens + edge_tokens
    size = own + crop_tokens + 2 * edge_tokens
    surroundings = Surroundings(store)
    met = [(name, crop_of(name, other)) for name in shown for other in shown if name != other]
    valid = {key: np.zeros((len(numbers), size, size), bool) for key in dict.fromkeys(met)}
    vectors: dict[tuple[str, str], dict[str, np.ndarray]] = {key: {} for key in valid}
    for place, number in enumerate(track([int(n) for n in numbers], "encode")):
        patch = store[number]
        for name, crop in (key for key in valid if shown[key[0]][0] in patch):
            survey, bands = shown[name]
            n = store.pixels_per_token(survey)
            view = surroundings.mosaic(int(number), survey, margin * n).of_bands(bands)
            corner = corners[crop][place]
            window = tuple(slice((margin + c) * n, (margin + c + size) * n) for c in corner)
            rows, columns = (slice(-c, own - c) for c in corner)
            inside = _valid_tokens(view, window, n)[rows, columns]
            valid[name, crop][place, rows, columns] = inside
            for label, encoder in encoders.items():
                tokens = _encode(encoder, view, window)
                empty = np.zeros((len(numbers), *tokens.shape), np.float32)
                vectors[name, crop].setdefault(label, empty)[place] = tokens
    return EncodedSky(
        cells=[store[int(number)].cell for number in numbers],
        catalogues=list(catalogues),
        corners=corners,
        sides={key: Side(vectors[key], valid[key]) for key in valid},
        bands={name: bands for name, (_, bands) in shown.items()},
        token_arcsec=store.token_arcsec,
    )


def mean_tokens(sky: EncodedSky) -> dict[str, dict[str, Float[np.ndarray, " dimension"]]]:
    """By survey, each encoder's mean over all valid tokens of the survey."""
    means: dict[str, dict[str, np.ndarray]] = {}
    for (survey, _), side in sky.sides.items():
        for name, vectors in side.vectors.items():
            mean = vectors[side.valid].mean(axis=0, dtype=np.float64)
            means.setdefault(survey, {}).setdefault(name, mean)
    return means


def _encode(
    encoder: Encoder, view: Mosaic, window: tuple[slice, ...]
) -> Float32[np.ndarray, "row column dimension"]:
    flux, noise, mask = (
        np.ascontiguousarray(plane[(slice(None), *window)])[None]
        for plane in (view.flux, view.noise, view.mask)
    )
    with torch.inference_mode():
        tokens = encoder.encode(flux, noise, mask, survey=view.survey, bands=view.bands)
    return np.moveaxis(np.asarray(tokens, np.float32)[0], 0, -1)


def _valid_tokens(
    view: Mosaic, window: tuple[slice, ...], n: int
) -> Bool[np.ndarray, "row column"]:
    good = usable(view)[(slice(None), *window)].any(axis=0)
    rows, columns = (length // n for length in good.shape)
    return good.reshape(rows, n, columns, n).mean(axis=(1, 3)) >= VALID_SHARE
