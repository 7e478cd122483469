"""Images of sources: the 3 × 3 tokens of sky around each one's own, in every band of a survey."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.evaluate.injected import AROUND
from jaisp.evaluate.mosaic import Mosaic
from jaisp.evaluate.sources import fwhm_arcsec, usable

# Radii: of the best S/N of a point, and two for galaxies, never below so many arcsec.
APERTURES = ((0.673, 0.0), (1.0, 0.5), (1.6, 1.0))  # in FWHM, arcsec
LARGEST_ARCSEC = 1.55  # of an aperture's radius: a token's width lies between a source and the edge
ITERATIONS = 10
LARGEST_SIGMA_ARCSEC = 1.2


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
    flux: Float32[np.ndarray, "source band y x"]
    noise: Float32[np.ndarray, "source band"]
    fwhm: Float32[np.ndarray, "source band"]
    offset: Float[np.ndarray, "source 2"]

    def __len__(self) -> int:
        return len(self.flux)

    def part(self, chosen: Bool[np.ndarray, " source"], bands: Sequence[str]) -> "Stamps":
        """Some of the sources in some of the bands."""
        numbers = np.array([self.bands.index(band) for band in bands], int)
        cut = np.ix_(chosen, numbers)
        own = self.flux[cut], self.noise[cut], self.fwhm[cut], self.offset[chosen]
        return Stamps(self.survey, list(bands), self.grid_arcsec, *own)

    @property
    def tokens(self) -> int:
        """Pixels along a token's side."""
        return self.flux.shape[-1] // (2 * AROUND + 1)

    def apertures(self) -> Float[np.ndarray, "source band aperture"]:
        """Flux in circles of APERTURES, nJy; pixels at the rim count by a soft edge.

        What is unusable counts as empty; NaN where the source's own pixel is unusable.
        """
        dx, dy = self._from_source()
        distance = np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2)
        flux = np.nan_to_num(self.flux)
        found = np.empty((*self.noise.shape, len(APERTURES)))
        for number, (factor, least) in enumerate(APERTURES):
            for band in range(len(self.bands)):
                smallest = max(least, self.grid_arcsec)
                radius = np.clip(factor * self.fwhm[:, band], smallest, LARGEST_ARCSEC)
                inside = (radius[:, None, None] - distance) / self.grid_arcsec + 0.5
                weight = np.clip(inside, 0, 1)
                found[:, band, number] = np.einsum("syx,syx->s", flux[:, band], weight)
        return np.where(np.isfinite(self.noise)[..., None], found, np.nan)

    def moments(self) -> Float[np.ndarray, "source band 4"]:
        """Adaptive moments (Bernstein & Jarvis 2002): size xx + yy in arcsec², (xx − yy) and 2 xy
        over that size, and S/N under the weight, an elliptical Gaussian fitted to the image."""
        found = np.full((*self.noise.shape, 4), np.nan)
        for band in range(len(self.bands)):
            known = np.isfinite(self.noise[:, band])
            if known.any():
                found[known, band] = self._adapted(band, known)
        return found

    def _adapted(self, band: int, known: Bool[np.ndarray, " source"]) -> np.ndarray:
        flux = np.nan_to_num(self.flux[known, band])
        dx, dy = (axis[known] for axis in self._from_source())
        smallest = (self.fwhm[known, band] / 2.3548) ** 2
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
        values = (size, (xx - yy) / size, 2 * xy / size, snr / self.noise[known, band])
        return np.stack(values, axis=1)

    def _from_source(
        self,
    ) -> tuple[Float[np.ndarray, "source x"], Float[np.ndarray, "source y"]]:
        """How far each column and each row lies from the source, arcsec."""
        side = self.flux.shape[-1]
        axis = (np.arange(side) + 0.5 - side / 2) * self.grid_arcsec
        return axis - self.offset[:, :1], axis - self.offset[:, 1:]


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
        np.moveaxis(windows[:, row, column], 1, 0).copy(),
        noise,
        np.broadcast_to(fwhm_arcsec(mosaic), noise.shape).astype(np.float32),
        xy - (token + 0.5) * token_arcsec,
    )


def join_stamps(parts: Sequence[Stamps]) -> Stamps:
    """One set of sources after another, all of one survey."""
    first = parts[0]
    joined = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("flux", "noise", "fwhm", "offset")
    )
    return Stamps(first.survey, first.bands, first.grid_arcsec, *joined)
