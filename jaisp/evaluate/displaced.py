"""Patches that were displaced by known amounts, beside the same patches at home.

Every patch is encoded for itself, at home and displaced, for what surrounds a displaced patch is
displaced otherwise. Sources are found at home; a source is looked at four times, as the 3 × 3
tokens around each of the four tokens whose centres are nearest to it at home.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.injected import AROUND, InjectedSky
from jaisp.evaluate.motion import Motion
from jaisp.evaluate.scene import Encoder, Scene
from jaisp.evaluate.sources import Catalogue, find_sources
from jaisp.progress import track
from jaisp.store.reader import Patch, Store, View

HOME, AWAY = "home", "displaced"
SIDE = 2 * AROUND + 1


@dataclass(frozen=True)
class Patches:
    """Displaced patches. home, away: their numbers in either store. motion: by survey."""

    home: Int[np.ndarray, " patch"]
    away: Int[np.ndarray, " patch"]
    cells: list[str]
    is_train: Bool[np.ndarray, " patch"]
    is_test: Bool[np.ndarray, " patch"]
    motion: dict[str, Motion]

    def __len__(self) -> int:
        return len(self.home)


@dataclass(frozen=True)
class Sources:
    """Sources of the patches, one a token, each up to four times.

    number: of the source. patch: an index into the patches. token: row and column of the one in
    the middle of a look. place: arcsec west and north of the patch's centre. snr: by survey, 0
    where it doesn't cover the patch.
    """

    number: Int[np.ndarray, " look"]
    patch: Int[np.ndarray, " look"]
    token: Int[np.ndarray, "look 2"]
    place: Float[np.ndarray, "look 2"]
    snr: dict[str, Float[np.ndarray, " look"]]


@dataclass(frozen=True)
class Encoded:
    """What encoders say around the sources.

    around: by survey and `home` or `displaced`, then by encoder; NaN where the survey doesn't
    cover the patch. mean: the same 3 × 3 tokens, each the survey's mean token at home.
    """

    around: dict[tuple[str, str], dict[str, Float32[np.ndarray, "look feature"]]]
    mean: dict[str, dict[str, Float32[np.ndarray, " feature"]]]


def displaced_patches(home: Store, displaced: InjectedSky, settings: EvaluateConfig) -> Patches:
    """Patches of train and test split, at most so many of each, evenly over the sky."""
    table, store = displaced.sources, displaced.store
    split = np.asarray(table["split"]).astype(str)
    chosen = np.sort(
        np.concatenate(
            [
                _evenly(np.flatnonzero(split == name), settings.patches_of(name))
                for name in ("train", "test")
            ]
        )
    )
    names = [f"{table['cell'][i]}/{table['row'][i]}" for i in chosen]
    motion = {
        survey: Motion(
            np.stack([displaced.column(f"d{axis}_mas_{survey}")[chosen] for axis in "xy"], axis=1),
            1000 * np.radians(displaced.column(f"angle_deg_{survey}")[chosen]),
        )
        for survey in store.surveys
    }
    return Patches(
        home=np.array([home[name].number for name in names], int),
        away=np.array([store[name].number for name in names], int),
        cells=[str(table["cell"][i]) for i in chosen],
        is_train=split[chosen] == "train",
        is_test=split[chosen] == "test",
        motion=motion,
    )


def _evenly(numbers: Int[np.ndarray, " patch"], most: int) -> Int[np.ndarray, " kept"]:
    return numbers[:: -(-len(numbers) // most) or 1]


def home_catalogues(home: Store, patches: Patches) -> list[Catalogue]:
    """Sources of every patch at home, in all surveys together."""
    return [
        _catalogue(home[int(number)], home[int(number)].surveys)
        for number in track(list(patches.home), "find sources at home")
    ]


def displaced_catalogues(store: Store, patches: Patches) -> list[dict[str, Catalogue]]:
    """Sources of every displaced patch, each survey for itself."""
    return [
        {survey: _catalogue(store[int(n)], [survey]) for survey in store[int(n)].surveys}
        for n in track(list(patches.away), "find displaced sources")
    ]


def _catalogue(patch: Patch, surveys: list[str]) -> Catalogue:
    views = {survey: patch[survey] for survey in surveys}
    store, cell = patch.store, patch.cell
    return find_sources(views, {survey: store.noise_correlation(cell, survey) for survey in views})


def chosen_sources(home: Store, catalogues: list[Catalogue], snr_min: float) -> Sources:
    """Sources above `snr_min` in two surveys at least, the brightest of each token."""
    half = home.patch_arcsec / 2
    side = round(home.patch_arcsec / home.token_arcsec)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("patch", "token", "place")}
    snr: dict[str, list[np.ndarray]] = {survey: [] for survey in home.surveys}
    for number, catalogue in enumerate(catalogues):
        own = {s: catalogue.snr.get(s, np.zeros(len(catalogue))) for s in home.surveys}
        members = _brightest(catalogue, own, home.token_arcsec, snr_min)
        found["patch"].append(np.full(len(members), number))
        found["token"].append(catalogue.xy[members, ::-1] / home.token_arcsec)
        found["place"].append(catalogue.xy[members] - half)
        for survey, values in own.items():
            snr[survey].append(values[members])
    patch, where, place = (np.concatenate(values) for values in found.values())
    # The token that holds a source, and its neighbours on the source's side.
    inside, step = np.floor(where), np.where(where % 1 < 0.5, -1, 1)
    looks = np.stack([inside + step * look for look in product((0, 1), repeat=2)], axis=1)
    kept = ((looks >= AROUND) & (looks < side - AROUND)).all(axis=2)
    source, look = np.nonzero(kept)
    return Sources(
        number=source,
        patch=patch[source],
        token=looks[source, look].astype(int),
        place=place[source],
        snr={survey: np.concatenate(values)[source] for survey, values in snr.items()},
    )


def _brightest(
    catalogue: Catalogue,
    snr: Mapping[str, Float[np.ndarray, " source"]],
    token_arcsec: float,
    snr_min: float,
) -> Int[np.ndarray, " kept"]:
    """Sources above `snr_min` in two surveys, the brightest of each token."""
    every = np.stack(list(snr.values()))
    order = np.flatnonzero((every > snr_min).sum(axis=0) >= 2)
    order = order[np.argsort(-(every[:, order] ** 2).sum(axis=0), kind="stable")]
    _, first = np.unique(catalogue.tokens(token_arcsec)[order], axis=0, return_index=True)
    return np.sort(order[first])


def encode_patches(
    home: Store,
    away: Store,
    patches: Patches,
    sources: Sources,
    encoders: Mapping[str, Encoder],
) -> Encoded:
    """Encode every patch, at home and displaced, in every survey that covers it."""
    around: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    total: dict[str, dict[str, np.ndarray]] = {}
    for where, store, numbers in ((HOME, home, patches.home), (AWAY, away, patches.away)):
        for place, number in enumerate(track([int(n) for n in numbers], f"encode {where}")):
            members = sources.patch == place
            patch = store[number]
            for survey in patch.surveys:
                scene = scene_of(patch[survey])
                for name, encoder in encoders.items():
                    grid = _encode(encoder, scene)
                    own = around.setdefault((survey, where), {})
                    empty = np.full((len(members), SIDE**2 * len(grid)), np.nan, np.float32)
                    own.setdefault(name, empty)[members] = _cut(grid, sources.token[members])
                    if where == HOME and patches.is_train[place]:
                        means = total.setdefault(survey, {})
                        means.setdefault(name, np.zeros(len(grid) + 1))
                        means[name] += [*grid.mean(axis=(1, 2), dtype=np.float64), 1]
    mean = {
        survey: {
            name: np.repeat(values[:-1] / values[-1], SIDE**2).astype(np.float32)
            for name, values in own.items()
        }
        for survey, own in total.items()
    }
    return Encoded(around, mean)


def scene_of(view: View) -> Scene:
    """A patch in one survey, as encoders are shown it."""
    return Scene(view.flux, view.noise, view.mask, view.survey, view.bands)


def tokens_around(
    encoder: Encoder, scene: Scene, tokens: Int[np.ndarray, "look 2"]
) -> Float32[np.ndarray, "look feature"]:
    """The 3 × 3 tokens around some of a patch's, dimension by dimension."""
    return _cut(_encode(encoder, scene), tokens)


def _encode(encoder: Encoder, scene: Scene) -> Float32[np.ndarray, "dimension row column"]:
    return np.asarray(scene.encode(encoder), np.float32)[0]


def _cut(
    grid: Float32[np.ndarray, "dimension row column"], tokens: Int[np.ndarray, "look 2"]
) -> Float32[np.ndarray, "look feature"]:
    """The 3 × 3 tokens around each, dimension by dimension."""
    squares = np.lib.stride_tricks.sliding_window_view(grid, (SIDE, SIDE), axis=(1, 2))
    row, column = (tokens - AROUND).T
    return np.moveaxis(squares[:, row, column], 1, 0).reshape(len(tokens), -1)
