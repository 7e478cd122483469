"""Phase correlation (Kuglin & Hines 1975) of two bands, gathered over several pieces of sky."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
from jaxtyping import Bool, Complex, Float

from jaisp.evaluate.controls import coarse_snr
from jaisp.evaluate.mosaic import Mosaic
from jaisp.evaluate.sources import FWHM_IN_SIGMA, fwhm_arcsec, usable

Band = tuple[str, str]  # survey and band
TAPER = 0.2
LEAST_SEEN = 0.02
FINE_STEPS = 20


@dataclass
class PhaseCorrelation:
    """The cross-power spectrum of two bands, gathered over images, and its peak.

    Images are asinh(S/N) on the coarser survey's grid. Frequencies count by their coherence over
    the images, low-passed by the broader PSF.
    """

    grid_arcsec: float = 0.0
    fwhm_arcsec: float = 0.0
    images: int = 0
    cross: Complex[np.ndarray, "y x"] | float = 0.0
    power: list[Float[np.ndarray, "y x"] | float] = field(default_factory=lambda: [0.0, 0.0])
    products: Float[np.ndarray, " 4"] = field(default_factory=lambda: np.zeros(4))

    def add(self, images: "Images", query: Band, target: Band) -> None:
        """Take one piece of sky in; one without good pixels in both bands is passed over."""
        mosaics = images.mosaics[query[0]], images.mosaics[target[0]]
        coarser = max(mosaics, key=lambda mosaic: mosaic.grid_arcsec)
        pixels = coarser.flux.shape[-1]
        first, seen_first = images.at(query, pixels)
        second, seen_second = images.at(target, pixels)
        seen = seen_first & seen_second
        if seen.mean() < LEAST_SEEN:
            return
        first, second = (np.where(seen, i - i[seen].mean(), 0) for i in (first, second))
        turned = second[::-1, ::-1]
        self.products += [
            (first * second).sum(),
            (first**2).sum(),
            (second**2).sum(),
            (first * turned).sum(),
        ]
        from scipy.signal.windows import tukey  # half a second that few parts need

        taper = np.outer(tukey(pixels, TAPER), tukey(pixels, TAPER))
        a, b = scipy.fft.fft2(first * taper), scipy.fft.fft2(second * taper)
        self.cross = self.cross + a.conj() * b
        self.power = [self.power[0] + np.abs(a) ** 2, self.power[1] + np.abs(b) ** 2]
        self.grid_arcsec = coarser.grid_arcsec
        self.fwhm_arcsec = max(
            float(fwhm_arcsec(mosaic)[mosaic.bands.index(band)])
            for mosaic, (_, band) in zip(mosaics, (query, target), strict=True)
        )
        self.images += 1

    def correlation(self) -> tuple[float, float]:
        """Pearson's coefficient of the images, and with the target turned by half a circle."""
        both, first, second, turned = self.products
        norm = np.sqrt(first * second)
        return (float(both / norm), float(turned / norm)) if norm > 0 else (0.0, 0.0)

    def shift_arcsec(self) -> tuple[float, float]:
        """Offset of the target, arcsec east and north."""
        coherence = self.cross / np.sqrt(self.power[0] * self.power[1] + 1e-30)
        sigma = max(self.fwhm_arcsec / FWHM_IN_SIGMA / self.grid_arcsec, 0.5)
        k = np.fft.fftfreq(len(coherence))
        low_pass = np.exp(-2 * (np.pi * sigma) ** 2 * np.add.outer(k**2, k**2))
        row, column = peak(coherence * low_pass)
        return -column * self.grid_arcsec, row * self.grid_arcsec


def peak(spectrum: Complex[np.ndarray, "y x"]) -> tuple[float, float]:
    """Where the inverse transform of `spectrum` is highest, in pixels, to 1/400 of a pixel.

    Coarsely by FFT and then by direct transforms around the peak (Guizar-Sicairos et al. 2008).
    """
    n = len(spectrum)
    surface = np.fft.ifft2(spectrum).real
    place = np.array(np.unravel_index(surface.argmax(), surface.shape), float)
    place = (place + n // 2) % n - n // 2
    k = np.fft.fftfreq(n)
    for step in (1 / FINE_STEPS, 1 / FINE_STEPS**2):
        near = place[:, None] + step * np.arange(-FINE_STEPS, FINE_STEPS + 1)
        rows, columns = (np.exp(2j * np.pi * np.outer(axis, k)) for axis in near)
        fine = (rows @ spectrum @ columns.T).real
        row, column = np.unravel_index(fine.argmax(), fine.shape)
        place = np.array([near[0, row], near[1, column]])
    return float(place[0]), float(place[1])


class Images:
    """asinh(S/N) of a piece of sky in any band, on any coarser grid, each made once."""

    def __init__(self, mosaics: Mapping[str, Mosaic]) -> None:
        self.mosaics = mosaics
        self._good = {survey: usable(mosaic) for survey, mosaic in mosaics.items()}
        self._made: dict[tuple[Band, int], np.ndarray] = {}

    def at(
        self, which: Band, pixels: int
    ) -> tuple[Float[np.ndarray, "y x"], Bool[np.ndarray, "y x"]]:
        """The image, `pixels` a side, and where it was seen."""
        if (which, pixels) not in self._made:
            survey, band = which
            mosaic = self.mosaics[survey]
            i = mosaic.bands.index(band)
            snr = coarse_snr(mosaic.flux[i], mosaic.noise[i], self._good[survey][i], pixels)
            self._made[which, pixels] = np.arcsinh(snr)
        image = self._made[which, pixels]
        return image, image != 0
