"""Tokens of injected point sources: those around a reference token near each source.

The reference is one of the two tokens, in rows and in columns, whose centres are less than a token
away, by a coin that knows nothing of the source: offsets from its centre are uniform over ± one
token, and where the reference lies tells nothing of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from jaxtyping import Bool, Float, Float32, Int

from jaisp.embedding.mosaic import Mosaic, Planes
from jaisp.evaluate.scene import Encoder, Scene
from jaisp.evaluate.windows import windows
from jaisp.inject.names import copy_name
from jaisp.model.trunk import kept_dimensions
from jaisp.progress import track
from jaisp.store.reader import Store, open_store

AROUND = 1  # tokens on each side of the reference: 3 × 3
WINDOW = 32  # tokens that are encoded at a time, at least, without their margin
TOKENS, SCALES = "tokens", "scales"
# Of the features `tokens`, those of the reference token.
REFERENCE = slice((2 * AROUND + 1) ** 2 // 2, None, (2 * AROUND + 1) ** 2)

Features = dict[str, dict[str, Float32[np.ndarray, "source _"]]]


def kept(token: np.ndarray) -> np.ndarray:
    """The dimensions of tokens, on the last axis, that are nothing but places and shapes of
    peaks."""
    return token[..., -kept_dimensions(token.shape[-1]) :]


@dataclass(frozen=True)
class InjectedSky:
    """One sky with known point sources, warped and published as any other.

    sources: a row a source; docs/ruler.md names the columns. copies: stores of further copies of
    the sky, whose sources follow in the table; its column `copy` counts them from 0, `store`.
    """

    name: str
    store: Store
    sources: Table
    copies: tuple[Store, ...] = ()

    def column(self, name: str) -> Float[np.ndarray, " source"]:
        """A column as floats."""
        return np.asarray(self.sources[name], float)

    def part(self, chosen: Bool[np.ndarray, " source"]) -> "InjectedSky":
        """Some of the sources."""
        return replace(self, sources=self.sources[chosen])

    def stores(self) -> Iterator[tuple[Store, Bool[np.ndarray, " source"]]]:
        """Every copy's store, and which sources lie there."""
        copy = np.zeros(len(self.sources), int)
        if "copy" in self.sources.colnames:
            copy = np.asarray(self.sources["copy"], int)
        for number, store in enumerate((self.store, *self.copies)):
            yield store, copy == number


def open_injected(folder: Path) -> InjectedSky | None:
    """The sky in `folder`, with its copies beside it (`empty2`…); None when there is none."""
    stores, tables = [], []
    for number in count(1):
        copy = folder.with_name(copy_name(folder.name, number))
        if not (copy / "sources.ecsv").exists():
            break
        tables.append(Table.read(copy / "sources.ecsv", format="ascii.ecsv"))
        tables[-1]["copy"] = number - 1
        stores.append(open_store(copy / "patches.zarr"))
    if not stores:
        return None
    table = vstack(tables, metadata_conflicts="silent")
    return InjectedSky(folder.name, stores[0], table, tuple(stores[1:]))


def reference_tokens(
    sky: InjectedSky, seed: int
) -> tuple[Int[np.ndarray, "source 2"], Float[np.ndarray, "source 2"]]:
    """Row and column of each source's reference token in its cell, and where its centre is.

    The centre: x, y in arcsec on the cell's plane.
    """
    store, rng = sky.store, np.random.default_rng(seed)
    corner = np.array([_corner(store, str(cell)) for cell in sky.sources["cell"]])
    scale = store.token_arcsec
    place = np.stack([sky.column("y"), sky.column("x")], axis=1)
    steps = (place - corner) / scale - 0.5  # from the first token's centre
    token = np.floor(steps).astype(int) + rng.integers(0, 2, size=steps.shape)
    return token, (corner + (token + 0.5) * scale)[:, ::-1]


def nearest_tokens(sky: InjectedSky) -> Int[np.ndarray, "source 2"]:
    """Row and column in its cell of the token that each source lies on."""
    corner = np.array([_corner(sky.store, str(cell)) for cell in sky.sources["cell"]])
    place = np.stack([sky.column("y"), sky.column("x")], axis=1)
    return np.floor((place - corner) / sky.store.token_arcsec).astype(int)


def features(
    sky: InjectedSky,
    survey: str,
    encoders: Mapping[str, Encoder],
    tokens: Int[np.ndarray, "source 2"],
    edge_tokens: int,
    bands: list[str] | None = None,
    readouts: Sequence[str] = (TOKENS, SCALES),
) -> Features:
    """By encoder and readout (`tokens`, and `scales` where the encoder has them), what one survey's
    encoder says around each source's reference token; NaN where it lies beyond the sky.

    `tokens` are the 3 × 3 shared tokens; `scales` the features between pixels and tokens of the
    same square. bands: those that the encoder is shown; default all of them.
    """
    found: Features = {name: {} for name in encoders}
    # By whole patches, for some have sources and others don't even have pixels; and by where
    # sources are: a reference token may lie on a patch that would be encoded for it alone.
    patch = round(sky.store.patch_arcsec / sky.store.token_arcsec)
    side = sky.store.token_arcsec * patch * max(1, WINDOW // patch)
    place = np.stack([sky.column("y"), sky.column("x")], axis=1)
    for store, cell, own in (
        (store, str(cell), here & (np.asarray(sky.sources["cell"]) == cell))
        for store, here in sky.stores()
        for cell in np.unique(np.asarray(sky.sources["cell"])[here])
    ):
        mosaic = Mosaic(store, cell, survey)
        own &= ((tokens >= AROUND) & (tokens < np.array(mosaic.shape) - AROUND)).all(axis=1)
        square = np.floor((place - _corner(store, cell)) / side).astype(int)
        inside = np.flatnonzero(own)
        # The outermost of the 3 × 3 tokens have all of the margin, too.
        margin = AROUND + edge_tokens
        together = windows(tokens[inside], square[inside], margin)
        for members in track([inside[part] for part in together], f"encode {sky.name} {survey}"):
            corner = tokens[members].min(axis=0) - margin
            height, width = (np.ptp(tokens[members], axis=0) + 1 + 2 * margin).tolist()
            planes = mosaic.read(int(corner[0]), int(corner[1]), height, width)
            scene = _scene(planes, survey, mosaic.bands, bands or mosaic.bands)
            for name, encoder in encoders.items():
                stamps = _stamps(encoder, scene, tokens[members] - corner, readouts)
                for readout, values in stamps.items():
                    if readout not in found[name]:
                        empty = np.full((len(tokens), values.shape[1]), np.nan, np.float32)
                        found[name][readout] = empty
                    found[name][readout][members] = values
    return found


def _scene(planes: Planes, survey: str, every: list[str], bands: list[str]) -> Scene:
    """What encoders are shown of a window: some of its bands."""
    chosen = [every.index(band) for band in bands] if bands != every else slice(None)
    flux, noise, mask = planes.flux[chosen], planes.noise[chosen], planes.mask[chosen]
    return Scene(flux, noise, mask, survey, bands)


def _stamps(
    encoder: Encoder,
    scene: Scene,
    tokens: Int[np.ndarray, "source 2"],
    readouts: Sequence[str],
) -> dict[str, Float32[np.ndarray, "source feature"]]:
    """What an encoder says around some tokens of a window."""
    scales: dict[str, Any] = {}
    if SCALES in readouts and "scales" in signature(encoder.encode).parameters:
        shared, scales = scene.encode(encoder, scales=True)
    else:
        shared = scene.encode(encoder)
    grids = {TOKENS: shared} | ({SCALES: scales["fine"]} if "fine" in scales else {})
    side = np.asarray(shared).shape[-1]
    stamps = {}
    for readout, grid in grids.items():
        values = np.asarray(grid, np.float32)[0]
        stamps[readout] = _cut(values, tokens, values.shape[-1] // side)
    return stamps


def _cut(
    values: Float32[np.ndarray, "feature row column"],
    tokens: Int[np.ndarray, "source 2"],
    each: int,
) -> Float32[np.ndarray, "source all"]:
    """The square of 3 × 3 tokens around each, `each` positions of the grid a token."""
    side = (2 * AROUND + 1) * each
    squares = np.lib.stride_tricks.sliding_window_view(values, (side, side), axis=(1, 2))
    row, column = ((tokens - AROUND) * each).T
    return np.moveaxis(squares[:, row, column], 1, 0).reshape(len(tokens), -1).copy()


def _corner(store: Store, cell: str) -> tuple[float, float]:
    """y and x of the cell's first token's corner, arcsec on its plane."""
    own = np.asarray(store.index.cell) == cell
    half = store.patch_arcsec / 2
    return float(store.index.y[own].min() - half), float(store.index.x[own].min() - half)


def joined(parts: Sequence[Features]) -> Features:
    """Features of several surveys side by side, for readouts of all of them together."""
    return {
        name: {
            readout: np.concatenate([part[name][readout] for part in parts], axis=1)
            for readout in parts[0][name]
            if all(readout in part[name] for part in parts)
        }
        for name in parts[0]
    }
