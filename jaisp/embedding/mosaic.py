"""The patches of a cell as one image, and the squares of sky that tokens stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from jaxtyping import Bool, Float, Float32, Shaped, UInt8

from jaisp.sky import plane_wcs
from jaisp.store.correlation import DISC_OF_SQUARE, correlation_within
from jaisp.store.layout import UNUSABLE, Flag

# A token whose square has fewer valid pixels than this share, in every band, is uncovered.
COVERED = 0.5


@dataclass(frozen=True)
class Planes:
    """A rectangle of one survey's pixels.

    flux: nJy a pixel, NaN where missing. noise: 1σ in nJy, NaN or 0 where invalid. mask: bits of
    `jaisp.store.layout.Flag`.
    """

    flux: Float32[np.ndarray, "band y x"]
    noise: Float32[np.ndarray, "band y x"]
    mask: UInt8[np.ndarray, "band y x"]

    @classmethod
    def missing(cls, bands: int, height: int, width: int) -> "Planes":
        """A rectangle without any data."""
        shape = (bands, height, width)
        nothing = np.full(shape, np.nan, np.float32)
        return cls(nothing, nothing.copy(), np.full(shape, int(Flag.EDGE), np.uint8))

    def paste(self, other: "Planes", y: int, x: int) -> None:
        """Put in what of `other` lies inside, its first pixel at row y and column x of this."""
        height, width = self.flux.shape[-2:]
        rows, columns = other.flux.shape[-2:]
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + rows, height), min(x + columns, width)
        if top >= bottom or left >= right:
            return
        for name in ("flux", "noise", "mask"):
            piece = getattr(other, name)[..., top - y : bottom - y, left - x : right - x]
            getattr(self, name)[..., top:bottom, left:right] = piece

    @property
    def valid(self) -> Bool[np.ndarray, "band y x"]:
        """Whether a pixel holds a measurement."""
        measured = np.isfinite(self.flux) & (np.nan_to_num(self.noise) > 0)
        return measured & ((self.mask & int(UNUSABLE)) == 0)


def squares(
    pixels: Shaped[np.ndarray, "band y x"], side: int
) -> Shaped[np.ndarray, "band row column pixel"]:
    """Cut an image into squares of `side` pixels, the pixels of each on the last axis."""
    band, height, width = pixels.shape
    cut = pixels.reshape(band, height // side, side, width // side, side)
    return cut.swapaxes(2, 3).reshape(band, height // side, width // side, side * side)


def covered_squares(planes: Planes, side: int) -> Bool[np.ndarray, "row column"]:
    """Whether each square of `side` pixels has enough valid ones in some band."""
    return (squares(planes.valid, side).mean(axis=-1) >= COVERED).any(axis=0)


def signal_to_noise(
    planes: Planes, side: int, correlation: Float[np.ndarray, " band"]
) -> Float32[np.ndarray, "row column"]:
    """S/N of the flux in each square, in its best band; 0 where nothing is valid.

    correlation: measured over white-noise scatter within a square (`correlation_within`).
    """
    valid = planes.valid
    flux = squares(np.where(valid, planes.flux, 0), side).sum(axis=-1)
    variance = squares(np.where(valid, planes.noise, 0) ** 2, side).sum(axis=-1)
    sigma = np.sqrt(variance) * correlation[:, None, None]
    ratio = np.divide(flux, sigma, out=np.zeros_like(flux), where=sigma > 0)
    return ratio.max(axis=0).astype(np.float32)


class Mosaic:
    """One cell of a published store as one image of one survey, read rectangle by rectangle.

    shape: rows and columns in tokens. Patches that the store lacks are missing pixels.
    """

    def __init__(self, store: Any, cell: str, survey: str) -> None:
        self.cell = store.cell(cell)
        self.survey = survey
        self.bands: list[str] = list(store.bands(survey))
        self.token_arcsec: float = store.token_arcsec
        self.pixels_per_token: int = store.pixels_per_token(survey)
        self.grid_arcsec: float = store.grid_arcsec(survey)
        self.correlation = correlation_within(
            store.noise_correlation(cell, survey),
            DISC_OF_SQUARE * self.token_arcsec,
            self.grid_arcsec,
        )
        self._store = store
        self._patch_tokens = round(store.patch_arcsec / store.token_arcsec)

        numbers, (x, y) = store.numbers(cell), self.cell.centres.T
        half = store.patch_arcsec / 2
        self.x0, self.y0 = float(x.min() - half), float(y.min() - half)
        columns = np.rint((x - x.min()) / store.patch_arcsec).astype(int)
        rows = np.rint((y - y.min()) / store.patch_arcsec).astype(int)
        self._numbers = {
            (int(row), int(column)): int(number)
            for row, column, number in zip(rows, columns, numbers, strict=True)
        }
        self.shape = (
            int(rows.max() + 1) * self._patch_tokens,
            int(columns.max() + 1) * self._patch_tokens,
        )
        # Those of the last rectangle: windows go along rows, and the next one shares some.
        self._recent: dict[int, Planes | None] = {}

    def read(self, y: int, x: int, height: int, width: int) -> Planes:
        """A rectangle given in tokens, as pixels; what lies outside the cell is missing."""
        n, side = self.pixels_per_token, self._patch_tokens
        planes = Planes.missing(len(self.bands), height * n, width * n)
        recent: dict[int, Planes | None] = {}
        for row in range(y // side, (y + height - 1) // side + 1):
            for column in range(x // side, (x + width - 1) // side + 1):
                number = self._numbers.get((row, column))
                if number is None:
                    continue
                patch = recent[number] = self._patch(number)
                if patch is not None:
                    planes.paste(patch, (row * side - y) * n, (column * side - x) * n)
        self._recent = recent
        return planes

    def wcs(self, pixel_arcsec: float, y: int = 0, x: int = 0) -> WCS:
        """WCS of an image of this cell that begins at token (y, x), with such pixels."""
        scale = self.token_arcsec
        shape = tuple(round(tokens * scale / pixel_arcsec) for tokens in self.shape)
        return plane_wcs(self.cell, pixel_arcsec, self.x0 + x * scale, self.y0 + y * scale, shape)

    def _patch(self, number: int) -> Planes | None:
        if number in self._recent:
            return self._recent[number]
        patch = self._store[number]
        if self.survey not in patch:
            return None
        view = patch[self.survey]
        return Planes(view.flux, view.noise, view.mask)
