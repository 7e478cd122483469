"""Abutting patches joined, so that a galaxy wider than a patch is seen whole."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from jaisp.store.layout import Flag
from jaisp.store.reader import Store, View

LARGEST_ARCSEC = 130.0


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


def _places(
    store: Store, numbers: Int[np.ndarray, " patch"]
) -> tuple[Int[np.ndarray, " patch"], Int[np.ndarray, "patch 2"]]:
    """A cell's patches, and how many patches each lies from the cell's first column and row."""
    xy = np.stack([store.index.x[numbers], store.index.y[numbers]], axis=1)
    return numbers, np.round((xy - xy.min(axis=0)) / store.patch_arcsec).astype(int)
