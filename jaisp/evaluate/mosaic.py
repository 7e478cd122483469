"""Abutting patches joined: wide galaxies are seen whole, and patches with what lies around."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from jaisp.sky import NONE
from jaisp.store.layout import Flag
from jaisp.store.reader import Store, View

LARGEST_ARCSEC = 130.0
RECENT_VIEWS = 18


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A square of patches in one survey, with the planes of a `View`."""

    survey: str
    bands: list[str]
    grid_arcsec: float
    flux: Float32[np.ndarray, "band y x"]
    noise: Float32[np.ndarray, "band y x"]
    mask: UInt8[np.ndarray, "band y x"]
    psf_fwhm_arcsec: Float[np.ndarray, " band"]

    def of_bands(self, bands: list[str]) -> "Mosaic":
        """Some of the bands; of all of them, itself."""
        if bands == self.bands:
            return self
        chosen = [self.bands.index(band) for band in bands]
        planes = (self.flux[chosen], self.noise[chosen], self.mask[chosen])
        return Mosaic(self.survey, bands, self.grid_arcsec, *planes, self.psf_fwhm_arcsec[chosen])

    def part(self, rows: slice, columns: slice) -> "Mosaic":
        """A rectangle of the pixels, copied."""
        flux, noise, mask = (
            np.ascontiguousarray(plane[:, rows, columns])
            for plane in (self.flux, self.noise, self.mask)
        )
        return Mosaic(
            self.survey, self.bands, self.grid_arcsec, flux, noise, mask, self.psf_fwhm_arcsec
        )


@dataclass(frozen=True)
class Block:
    """Patches side by side on one cell. numbers: by row and column in the block, −1 for none."""

    cell: str
    numbers: np.ndarray

    def surveys(self, store: Store) -> list[str]:
        """Surveys that cover any of the patches."""
        held = self.numbers[self.numbers >= 0]
        return [s for s in store.surveys if any(s in store[int(n)] for n in held)]

    def mosaic(self, store: Store, survey: str) -> Mosaic:
        """The block's pixels; missing where a patch is not there or not covered."""
        bands = store.bands(survey)
        pixels = round(store.patch_arcsec / store.grid_arcsec(survey))
        side = len(self.numbers) * pixels
        flux = np.full((len(bands), side, side), np.nan, np.float32)
        noise, mask = flux.copy(), np.full(flux.shape, int(Flag.EDGE), np.uint8)
        seeing = []
        for row, column in np.argwhere(self.numbers >= 0):
            patch = store[int(self.numbers[row, column])]
            if survey not in patch:
                continue
            view: View = patch[survey]
            y, x = (slice(i * pixels, (i + 1) * pixels) for i in (row, column))
            place = (slice(None), y, x)
            flux[place], noise[place], mask[place] = view.flux, view.noise, view.mask
            seeing.append(view.psf_fwhm_arcsec)
        known = np.ma.masked_invalid(seeing).mean(axis=0)
        return Mosaic(
            survey, bands, store.grid_arcsec(survey), flux, noise, mask,
            np.ma.filled(known.astype(float), np.nan),
        )  # fmt: skip


def blocks(store: Store) -> Iterator[Block]:
    """Squares of patches, all of a size of up to 130″, that cover the store's sky once."""
    cell = store.index.cell
    places = {name: _places(store, np.flatnonzero(cell == name)) for name in store.cells}
    widest = max(int(steps.max()) + 1 for _, steps in places.values())
    side = max(1, min(widest, int(LARGEST_ARCSEC / store.patch_arcsec)))
    for name, (numbers, steps) in places.items():
        for square in np.unique(steps // side, axis=0):
            own = (steps // side == square).all(axis=1)
            block = np.full((side, side), -1)
            column, row = (steps[own] % side).T
            block[row, column] = numbers[own]
            yield Block(name, block)


class Surroundings:
    """Patches with the sky around them, as far as it is in the same split or in none."""

    def __init__(self, store: Store) -> None:
        self.store = store
        index = store.index
        self._step: dict[int, tuple[int, int]] = {}
        self._at: dict[tuple[str, int, int], int] = {}
        for cell in store.cells:
            for number, (x, y) in zip(
                *_places(store, np.flatnonzero(index.cell == cell)), strict=True
            ):
                self._step[int(number)] = (int(x), int(y))
                self._at[cell, int(x), int(y)] = int(number)
        # Neighbours share neighbours: what one patch needs in two surveys is kept.
        self._view = lru_cache(maxsize=RECENT_VIEWS)(self._read)

    def mosaic(self, number: int, survey: str, margin: int) -> Mosaic:
        """A patch's pixels with `margin` pixels more on each side; missing where there are none."""
        store, index = self.store, self.store.index
        pixels = round(store.patch_arcsec / store.grid_arcsec(survey))
        bands, side = store.bands(survey), pixels + 2 * margin
        flux = np.full((len(bands), side, side), np.nan, np.float32)
        noise, mask = flux.copy(), np.full(flux.shape, int(Flag.EDGE), np.uint8)
        x, y = self._step[number]
        for dy, dx in product((-1, 0, 1), repeat=2):
            other = self._at.get((index.cell[number], x + dx, y + dy))
            if other is None or index.split[other] not in (index.split[number], NONE):
                continue
            view = self._view(other, survey)
            if view is None:
                continue
            (to_y, from_y), (to_x, from_x) = (_overlap(d, pixels, margin) for d in (dy, dx))
            flux[:, to_y, to_x] = view.flux[:, from_y, from_x]
            noise[:, to_y, to_x] = view.noise[:, from_y, from_x]
            mask[:, to_y, to_x] = view.mask[:, from_y, from_x]
        own = self._view(number, survey)
        seeing = np.full(len(bands), np.nan) if own is None else own.psf_fwhm_arcsec
        return Mosaic(survey, bands, store.grid_arcsec(survey), flux, noise, mask, seeing)

    def _read(self, number: int, survey: str) -> View | None:
        patch = self.store[number]
        if survey not in patch:
            return None
        return patch[survey]


def _overlap(step: int, pixels: int, margin: int) -> tuple[slice, slice]:
    """Where pixels of the patch `step` patches away come to lie, and which of them, on one axis."""
    start = margin + step * pixels
    low, high = max(start, 0), min(start + pixels, pixels + 2 * margin)
    return slice(low, high), slice(low - start, high - start)


def _places(
    store: Store, numbers: Int[np.ndarray, " patch"]
) -> tuple[Int[np.ndarray, " patch"], Int[np.ndarray, "patch 2"]]:
    """A cell's patches, and how many patches each lies from the cell's first column and row."""
    xy = np.stack([store.index.x[numbers], store.index.y[numbers]], axis=1)
    return numbers, np.round((xy - xy.min(axis=0)) / store.patch_arcsec).astype(int)
