"""What the encoders are shown: two crops around each patch, displaced by whole tokens.

Both hold the patch and `edge_tokens` more on each side, an encoder's reach, as far as the
sky there is in the same split or in none; of each, the patch's own tokens count, so that every
piece of sky counts once. Of two surveys, the one first by name is shown the first crop, the other
the second. The crops of a patch are displaced by `crop_tokens` in rows and in columns, to sides
drawn for each patch: a token's place in its crop tells nothing about the place of its partner.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.mosaic import Surroundings
from jaisp.evaluate.scene import Encoder, Scene
from jaisp.evaluate.sources import Catalogue, usable
from jaisp.progress import track
from jaisp.store.reader import Store

FIRST, SECOND = "first", "second"
VALID_SHARE = 0.5

# By name, the survey and the bands that the encoders are given.
Shown = Mapping[str, tuple[str, list[str]]]


@dataclass(frozen=True)
class Side:
    """Tokens of one survey as one of the crops of all patches shows them, the patches' own.

    vectors: by encoder; of one that asks for it (`Pixels`), with some tokens around. valid: tokens
    with usable pixels on half their area, in any band.
    """

    vectors: dict[str, Float[np.ndarray, "patch tall wide dimension"]]
    valid: Bool[np.ndarray, "patch row column"]


@dataclass(frozen=True)
class EncodedSky:
    """Patches as the encoders see them.

    patches: names, CELL/ROW. corners: by crop, row and column at which it begins, from the
    patch's first token. sides: by survey and crop. bands: by survey. A "survey" may be one with
    some of its bands withheld, by a name of its own.
    """

    patches: list[str]
    catalogues: list[Catalogue]
    corners: dict[str, Int[np.ndarray, "patch 2"]]
    sides: dict[tuple[str, str], Side]
    bands: dict[str, list[str]]
    token_arcsec: float

    @property
    def surveys(self) -> list[str]:
        """Names of the surveys, sorted."""
        return sorted(self.bands)

    @property
    def cells(self) -> list[str]:
        """The cell of each patch."""
        return [name.rpartition("/")[0] for name in self.patches]


def crop_of(survey: str, other: str) -> str:
    """Which crop a survey is shown where it meets another."""
    return FIRST if survey < other else SECOND


def sides_met(shown: Shown) -> list[tuple[str, str]]:
    """Names and crops that are needed for every one to meet every other."""
    met = [(name, crop_of(name, other)) for name in shown for other in shown if name != other]
    return list(dict.fromkeys(met))


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
    settings: EvaluateConfig,
    shown: Shown | None = None,
    sides: Sequence[tuple[str, str]] | None = None,
) -> EncodedSky:
    """Encode patches `numbers` in every survey that covers them, by every encoder.

    shown: by name, the survey and the bands that the encoders are given; default every survey,
    with all of its bands. sides: the names and crops encoded; default all that meet another. A
    patch that a survey does not cover has no valid token there.
    """
    shown = everything(store) if shown is None else shown
    sides = sides_met(shown) if sides is None else sides
    corners = crop_corners(numbers, settings.crop_tokens, settings.edge, settings.seed)
    own = round(store.patch_arcsec / store.token_arcsec)
    valid = {side: np.zeros((len(numbers), own, own), bool) for side in sides}
    vectors: dict[tuple[str, str], dict[str, np.ndarray]] = {side: {} for side in sides}
    for view in crops(store, numbers, corners, settings, shown, sides):
        place, side = view.place, (view.name, view.crop)
        rows, columns = (slice(-c, own - c) for c in corners[view.crop][place])
        valid[side][place] = view.valid[rows, columns]
        for label, encoder in encoders.items():
            around = getattr(encoder, "around", 0)
            tokens = view.tokens(encoder, rows, columns, around)
            if label not in vectors[side]:
                vectors[side][label] = np.zeros((len(numbers), *tokens.shape), np.float32)
            vectors[side][label][place] = tokens
    return EncodedSky(
        patches=[store[int(number)].name for number in numbers],
        catalogues=list(catalogues),
        corners=corners,
        sides={side: Side(vectors[side], valid[side]) for side in sides},
        bands={name: bands for name, (_, bands) in shown.items()},
        token_arcsec=store.token_arcsec,
    )


def everything(store: Store) -> dict[str, tuple[str, list[str]]]:
    """Every survey under its own name, with all of its bands."""
    return {survey: (survey, store.bands(survey)) for survey in store.surveys}


@dataclass(frozen=True)
class CropView:
    """One crop of one patch as it is shown. place: of the patch among those asked for; scene: the
    crop in all of the survey's bands, of which `bands` are shown; valid: tokens with usable pixels
    in any of these."""

    place: int
    name: str
    crop: str
    scene: Scene
    bands: list[str]
    valid: Bool[np.ndarray, "row column"]

    def encode(self, encoder: Encoder) -> Float32[np.ndarray, "row column dimension"]:
        """The whole crop's tokens."""
        tokens = self.scene.encode(encoder, self.bands)
        return np.moveaxis(np.asarray(tokens, np.float32)[0], 0, -1)

    def tokens(
        self, encoder: Encoder, rows: slice, columns: slice, around: int
    ) -> Float32[np.ndarray, "row column dimension"]:
        """Some of the tokens, and so many around them; beyond the crop they are zero."""
        whole = self.encode(encoder)
        if around:
            whole = np.pad(whole, ((around, around), (around, around), (0, 0)))
        more = (slice(part.start, part.stop + 2 * around) for part in (rows, columns))
        return whole[tuple(more)]


def crops(
    store: Store,
    patches: Int[np.ndarray, " patch"],
    corners: Mapping[str, Int[np.ndarray, "patch 2"]],
    settings: EvaluateConfig,
    shown: Shown,
    sides: Sequence[tuple[str, str]],
) -> Iterator[CropView]:
    """Crop by crop what is shown, patch after patch; of patches that the survey covers."""
    own = round(store.patch_arcsec / store.token_arcsec)
    margin = settings.crop_tokens + settings.edge
    size = own + settings.crop_tokens + 2 * settings.edge
    surroundings = Surroundings(store)
    # What is the same crop of the same survey is cut out once, whatever bands are shown of it.
    alike = sorted(sides, key=lambda side: (shown[side[0]][0], side[1]))
    for place, number in enumerate(track([int(n) for n in patches], "encode")):
        for survey, of_survey in groupby(alike, key=lambda side: shown[side[0]][0]):
            if survey not in store[number]:
                continue
            n = store.pixels_per_token(survey)
            whole = surroundings.mosaic(number, survey, margin * n)
            for crop, members in groupby(of_survey, key=lambda side: side[1]):
                first = [(margin + int(c)) * n for c in corners[crop][place]]
                rows, columns = (slice(start, start + size * n) for start in first)
                part = whole.part(rows, columns)
                scene = Scene(part.flux, part.noise, part.mask, survey, part.bands)
                good = usable(part)
                for name, _ in members:
                    bands = shown[name][1]
                    numbers = [part.bands.index(band) for band in bands]
                    valid = _valid_tokens(good[numbers], n)
                    yield CropView(place, name, crop, scene, bands, valid)


def _valid_tokens(good: Bool[np.ndarray, "band y x"], n: int) -> Bool[np.ndarray, "row column"]:
    any_band = good.any(axis=0)
    rows, columns = (length // n for length in any_band.shape)
    return any_band.reshape(rows, n, columns, n).mean(axis=(1, 3)) >= VALID_SHARE
