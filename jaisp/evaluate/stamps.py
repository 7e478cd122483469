"""Images of sources: the 3 × 3 tokens of sky around each one's own, in every band of a survey.

They are most of what an evaluation keeps in memory: they stay as they were cut, patch by patch,
however sources are joined and chosen, and are measured a few at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma
from jaxtyping import Bool, Float, Float32, Int

from jaisp.evaluate.injected import AROUND
from jaisp.evaluate.mosaic import Mosaic
from jaisp.evaluate.sources import fwhm_arcsec, usable

# Radii: of the best S/N of a point, and two for galaxies, never below so many arcsec.
APERTURES = ((0.673, 0.0), (1.0, 0.5), (1.6, 1.0))  # in FWHM, arcsec
LARGEST_ARCSEC = 1.55  # of an aperture's radius: a token's width lies between a source and the edge
ITERATIONS = 10
LARGEST_SIGMA_ARCSEC = 1.2
AT_ONCE = 256  # sources that are measured together


@dataclass(frozen=True)
class Images:
    """Images [source, band, y, x], of which joined and chosen ones share the pixels.

    pieces: as they were cut. piece, place: where in them each source is. bands: which of theirs.
    """

    pieces: tuple[Float32[np.ndarray, "_ _ y x"], ...]
    piece: Int[np.ndarray, " source"]
    place: Int[np.ndarray, " source"]
    bands: Int[np.ndarray, " band"]

    @classmethod
    def whole(cls, pixels: Float32[np.ndarray, "source band y x"]) -> "Images":
        """All of an array's."""
        count, bands = pixels.shape[:2]
        return cls((pixels,), np.zeros(count, int), np.arange(count), np.arange(bands))

    def __len__(self) -> int:
        return len(self.piece)

    @property
    def side(self) -> int:
        """Pixels along a side."""
        return self.pieces[0].shape[-1]

    def part(self, chosen: Bool[np.ndarray, " source"], bands: Int[np.ndarray, " _"]) -> "Images":
        """Some of the sources in some of the bands."""
        return Images(self.pieces, self.piece[chosen], self.place[chosen], self.bands[bands])

    def pixels(self, sources: slice = slice(None)) -> Float32[np.ndarray, "_ _ y x"]:
        """The images of some of the sources, copied."""
        piece, place = self.piece[sources], self.place[sources]
        found = np.empty((len(piece), len(self.bands), self.side, self.side), np.float32)
        for number in np.unique(piece):
            own = piece == number
            found[own] = self.pieces[number][np.ix_(place[own], self.bands)]
        return found


def join_images(parts: Sequence[Images]) -> Images:
    """One set of sources after another, in the same bands."""
    first = np.cumsum([0, *(len(part.pieces) for part in parts)])
    return Images(
        tuple(piece for part in parts for piece in part.pieces),
        np.concatenate([part.piece + start for part, start in zip(parts, first[:-1], strict=True)]),
        np.concatenate([part.place for part in parts]),
        parts[0].bands,
    )


@dataclass(frozen=True)
class Stamps:
    """Images of the sources of a sky in one survey, cut along tokens.

    flux: nJy a pixel, NaN where unusable. noise: 1σ a pixel at the source, NaN where the source's
    own pixel is unusable. fwhm: of the PSF, arcsec. offset: x, y of the source from the stamp's
    centre, arcsec.
    """

    survey: str
    bands: list[str]
    grid_arcsec: float
    flux: Images
    noise: Float32[np.ndarray, "source band"]
    fwhm: Float32[np.ndarray, "source band"]
    offset: Float[np.ndarray, "source 2"]

    def __len__(self) -> int:
        return len(self.flux)

    def part(self, chosen: Bool[np.ndarray, " source"], bands: Sequence[str]) -> "Stamps":
        """Some of the sources in some of the bands."""
        numbers = np.array([self.bands.index(band) for band in bands], int)
        cut = np.ix_(chosen, numbers)
        own = self.noise[cut], self.fwhm[cut], self.offset[chosen]
        images = self.flux.part(chosen, numbers)
        return Stamps(self.survey, list(bands), self.grid_arcsec, images, *own)

    @property
    def tokens(self) -> int:
        """Pixels along a token's side."""
        return self.flux.side // (2 * AROUND + 1)

    def images(self) -> Float32[np.ndarray, "source band y x"]:
        """Each source's own token, flux over its noise."""
        n, found = self.tokens, []
        own = slice(n, 2 * n)
        for few in self._few_at_a_time():
            found.append(self.flux.pixels(few)[..., own, own] / self.noise[few, :, None, None])
        shape = (0, len(self.bands), n, n)
        return np.concatenate([np.zeros(shape, np.float32), *found])

    def apertures(self) -> Float[np.ndarray, "source band aperture"]:
        """Flux in circles of APERTURES, nJy; pixels at the rim count by a soft edge.

        What is unusable counts as empty; NaN where the source's own pixel is unusable.
        """
        found = np.empty((*self.noise.shape, len(APERTURES)))
        for few in self._few_at_a_time():
            found[few] = self._within(few)
        return np.where(np.isfinite(self.noise)[..., None], found, np.nan)

    def _within(self, few: slice) -> Float[np.ndarray, "source band aperture"]:
        dx, dy = (axis[few] for axis in self._from_source())
        distance = np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2)
        flux, fwhm = np.nan_to_num(self.flux.pixels(few)), self.fwhm[few]
        found = np.empty((*fwhm.shape, len(APERTURES)))
        for number, (factor, least) in enumerate(APERTURES):
            for band in range(len(self.bands)):
                smallest = max(least, self.grid_arcsec)
                radius = np.clip(factor * fwhm[:, band], smallest, LARGEST_ARCSEC)
                inside = (radius[:, None, None] - distance) / self.grid_arcsec + 0.5
                weight = np.clip(inside, 0, 1)
                found[:, band, number] = np.einsum("syx,syx->s", flux[:, band], weight)
        return found

    def moments(self) -> Float[np.ndarray, "source band 4"]:
        """Adaptive moments (Bernstein & Jarvis 2002): size xx + yy in arcsec², (xx − yy) and 2 xy
        over that size, and S/N under the weight, an elliptical Gaussian fitted to the image."""
        found = np.full((*self.noise.shape, 4), np.nan)
        for few in self._few_at_a_time():
            flux = np.nan_to_num(self.flux.pixels(few))
            for band in range(len(self.bands)):
                found[few, band] = self._adapted(flux[:, band], few, band)
        return np.where(np.isfinite(self.noise)[..., None], found, np.nan)

    def _adapted(
        self, flux: Float32[np.ndarray, "source y x"], few: slice, band: int
    ) -> Float[np.ndarray, "source 4"]:
        dx, dy = (axis[few] for axis in self._from_source())
        smallest = (self.fwhm[few, band] * gaussian_fwhm_to_sigma) ** 2
        xx, yy, xy = 1.5 * smallest, 1.5 * smallest, 0 * smallest
        for _ in range(ITERATIONS):
            weighted = flux * _gaussian(dx, dy, xx, yy, xy)
            total = weighted.sum(axis=(1, 2))
            good = total > 0
            safe = np.where(good, total, 1)
            columns, rows = weighted.sum(axis=1), weighted.sum(axis=2)
            measured = (
                (columns * dx**2).sum(axis=1) / safe,
                (rows * dy**2).sum(axis=1) / safe,
                np.einsum("syx,sy,sx->s", weighted, dy, dx, optimize=True) / safe,
            )
            # Under a weight of its own shape, a Gaussian has half its moments.
            low, high = 0.3 * smallest, LARGEST_SIGMA_ARCSEC**2
            xx, yy = (
                np.where(good, np.clip(2 * new, low, high), old)
                for new, old in zip(measured[:2], (xx, yy), strict=True)
            )
            limit = 0.9 * np.sqrt(xx * yy)
            xy = np.where(good, np.clip(2 * measured[2], -limit, limit), xy)
        weight = _gaussian(dx, dy, xx, yy, xy)
        snr = (flux * weight).sum(axis=(1, 2)) / np.sqrt((weight**2).sum(axis=(1, 2)))
        size = xx + yy
        values = (size, (xx - yy) / size, 2 * xy / size, snr / self.noise[few, band])
        return np.stack(values, axis=1)

    def _from_source(
        self,
    ) -> tuple[Float[np.ndarray, "source x"], Float[np.ndarray, "source y"]]:
        """How far each column and each row lies from the source, arcsec."""
        side = self.flux.side
        axis = (np.arange(side) + 0.5 - side / 2) * self.grid_arcsec
        return axis - self.offset[:, :1], axis - self.offset[:, 1:]

    def _few_at_a_time(self) -> Iterator[slice]:
        for start in range(0, len(self), AT_ONCE):
            yield slice(start, start + AT_ONCE)


def _gaussian(
    dx: np.ndarray, dy: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> Float[np.ndarray, "source y x"]:
    determinant = xx * yy - xy**2
    along, across, slant = (value / determinant for value in (yy, xx, xy))
    exponent = (
        (along[:, None] * dx**2)[:, None, :]
        + (across[:, None] * dy**2)[:, :, None]
        - 2 * (slant[:, None] * dx)[:, None, :] * dy[:, :, None]
    )
    return np.exp(-exponent / 2)


def cut_stamps(mosaic: Mosaic, pixels_per_token: int, xy: Float[np.ndarray, "source 2"]) -> Stamps:
    """Stamps of sources in a patch that has a margin of `AROUND` tokens on each side.

    xy: arcsec from the outer corner of the margin's first pixel.
    """
    token_arcsec = pixels_per_token * mosaic.grid_arcsec
    token: Int[np.ndarray, "source 2"] = np.floor(xy / token_arcsec).astype(int)
    flux = np.where(usable(mosaic), mosaic.flux, np.nan).astype(np.float32)
    side = (2 * AROUND + 1) * pixels_per_token
    windows = np.lib.stride_tricks.sliding_window_view(flux, (side, side), axis=(1, 2))
    column, row = (token - AROUND).T * pixels_per_token
    x, y = np.floor(xy / mosaic.grid_arcsec).astype(int).T
    own = np.isfinite(flux[:, y, x]) if len(xy) else np.zeros((len(flux), 0), bool)
    noise = np.where(own, mosaic.noise[:, y, x], np.nan).T.astype(np.float32)
    return Stamps(
        mosaic.survey,
        mosaic.bands,
        mosaic.grid_arcsec,
        Images.whole(np.moveaxis(windows[:, row, column], 1, 0).copy()),
        noise,
        np.broadcast_to(fwhm_arcsec(mosaic), noise.shape).astype(np.float32),
        xy - (token + 0.5) * token_arcsec,
    )


def join_stamps(parts: Sequence[Stamps]) -> Stamps:
    """One set of sources after another, all of one survey."""
    first = parts[0]
    joined = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("noise", "fwhm", "offset")
    )
    images = join_images([part.flux for part in parts])
    return Stamps(first.survey, first.bands, first.grid_arcsec, images, *joined)
