"""Point spread functions that vary over a tile, and how to draw with them.

A tile is divided into squares of BLOCK_ARCSEC. Each has one exact PSF, so that every source is seen
through one that is known; size and ellipticity follow quadratic polynomials over the tile.

- On the ground: an elliptical Moffat profile, sheared and stretched.
- In space: an obscured, band-averaged Airy pattern with the vanes' spikes, convolved with an
  elliptical Gaussian (jitter and charge diffusion) that gives it the stated FWHM.

Positions are native detector pixels, 0 at the centre of the first one, unless said otherwise.
"""

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32
from numba import njit
from scipy.optimize import brentq

from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.astrometry import refraction, tile_offset
from jaisp.simulate.frames import Frame
from jaisp.simulate.instruments import Instrument
from jaisp.simulate.resample import KERNEL_HALF_WIDTH, lanczos
from jaisp.simulate.seeds import generator
from jaisp.simulate.transfer import (
    TABLE_STEP,
    Telescope,
    moffat_scale,
    moffat_table,
    telescope_transfer,
)

__all__ = ["Optics", "TilePsf", "add_points", "optics_of", "refraction", "tile_offset", "tile_psf"]

BLOCK_ARCSEC = 51.2
MARGIN_ARCSEC = 6.4  # around a block: where a PSF is cut, unless its source is bright
CUT = 2e-4  # frequencies at which less is left of a pixel-integrated PSF are left out
SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))  # of a Gaussian of unit FWHM
AB_NJY = 31.4  # AB magnitude of 1 nJy

# RMS of the terms of the polynomials: constant, linear, quadratic. Sizes are relative.
GROUND_SIZE, GROUND_ELLIPTICITY, GROUND_LARGEST = (0.02, 0.015, 0.01), (0.015, 0.01, 0.005), 0.05
SPACE_SIZE, SPACE_ELLIPTICITY, SPACE_LARGEST = (0.005, 0.005, 0.003), (0.006, 0.004, 0.002), 0.02


@dataclass(frozen=True)
class Optics:
    """The nominal PSF of one band on its native pixels, without its change over a tile.

    `telescope` is None on the ground, where `beta` is the Moffat profile's. `blur` is the σ of the
    Gaussian in space (arcsec).
    """

    pixel_arcsec: float
    fwhm_arcsec: float  # before pixels
    beta: float
    telescope: Telescope | None
    edges: tuple[float, float]  # nm
    blur: float

    def transfer(
        self,
        frequency_y: Float[np.ndarray, " y"],
        frequency_x: Float[np.ndarray, " x"],
        size: float = 1.0,
        e1: float = 0.0,
        e2: float = 0.0,
        pixels: bool = True,
    ) -> Float32[np.ndarray, "y x"]:
        """Transfer function at frequencies in cycles per native pixel, with the pixel's own.

        e1, e2: (a − b) / (a + b) times cosine and sine of twice the angle from +x to +y.
        """
        factors = [np.sinc(f) if pixels else np.ones(len(f)) for f in (frequency_y, frequency_x)]
        return self.product(frequency_y, frequency_x, size, e1, e2, *factors)

    def product(
        self,
        frequency_y: np.ndarray,
        frequency_x: np.ndarray,
        size: float,
        e1: float,
        e2: float,
        factor_y: np.ndarray,
        factor_x: np.ndarray,
    ) -> np.ndarray:
        """Transfer function times a factor a row and a factor a column."""
        vectors = [np.asarray(v, np.float64) for v in (frequency_y, frequency_x)]
        factors = [np.asarray(f, np.float32) for f in (factor_y, factor_x)]
        if self.telescope is None:
            scale = moffat_scale(size * self.fwhm_arcsec, self.beta) / self.pixel_arcsec
            stretch = scale / np.sqrt(1.0 - e1**2 - e2**2)
            axes = stretch * np.array([1.0 + e1, e2, 1.0 - e1])
            return _moffat(*vectors, *axes, moffat_table(self.beta), 1.0 / TABLE_STEP, *factors)
        base = _base(self, vectors[0].tobytes(), vectors[1].tobytes())
        nominal = (SIGMA * self.fwhm_arcsec) ** 2
        round_ = self.blur**2 + nominal * (size**2 - 1.0)
        covariance = np.array(
            [round_ + 2 * nominal * e1, 2 * nominal * e2, round_ - 2 * nominal * e1]
        )
        covariance *= 2.0 * np.pi**2 / self.pixel_arcsec**2
        return _blurred(*vectors, base, *covariance, *factors)

    def noise_pixels(self) -> float:
        """1 / Σp² of a star's image, the mean over its places in a pixel (Parseval)."""
        return float(1.0 / (self._nominal().astype(float) ** 2).sum() / NOMINAL_STEP**2)

    def peak_share(self) -> float:
        """The share of a star's flux that falls into its central pixel."""
        return float(self._nominal().sum(dtype=float) * NOMINAL_STEP**2)

    @cached_property
    def oversampling(self) -> int:
        """Samples a pixel that hold all frequencies of a pixel-integrated PSF."""
        frequency = np.arange(0.0, 8.0, 0.05)
        row = np.abs(self.transfer(np.zeros(1), frequency))[0]
        return max(2, int(np.ceil(2.0 * frequency[row > CUT].max())))

    def wing_reach(self, flux: Float[np.ndarray, " n"], level: float) -> Float[np.ndarray, " n"]:
        """The radius (native pixels) beyond which a point of `flux` stays below `level` a pixel."""
        share = np.maximum(np.abs(flux) / level, 1e-30) * self.pixel_arcsec**2
        if self.telescope is None:
            scale = moffat_scale(self.fwhm_arcsec, self.beta)
            peak = share * (self.beta - 1.0) / (np.pi * scale**2)
            return scale * peak ** (0.5 / self.beta) / self.pixel_arcsec
        # Beyond the first rings the mean over angles falls as r⁻³; spikes stand above it. The share
        # of light beyond r is 2 λ / (π² D (1 − ε) r), from the slope of the transfer function at 0.
        width = 0.5e-9 * sum(self.edges) / self.telescope.diameter * 206265.0
        wing = SPIKES * width / (np.pi**3 * (1.0 - self.telescope.obscuration))
        return (share * wing) ** (1.0 / 3.0) / self.pixel_arcsec

    def _nominal(self) -> np.ndarray:
        frequency = np.arange(-NOMINAL_REACH, NOMINAL_REACH + NOMINAL_STEP / 2, NOMINAL_STEP)
        return self.transfer(frequency, frequency)


NOMINAL_STEP, NOMINAL_REACH = 1 / 64, 3.0  # cycles per pixel
SPIKES = 3.0  # along a spike, over the mean of all angles


@cache
def optics_of(instrument: Instrument, band_name: str, seeing: float = 1.0) -> Optics:
    """The nominal PSF of a band; `seeing` multiplies the FWHM on the ground."""
    band = instrument.bands[band_name]
    pixel = instrument.pixel_arcsec * band.native_pixels
    if instrument.telescope is None:
        fwhm = band.fwhm_arcsec * seeing
        return Optics(pixel, fwhm, instrument.moffat_beta, None, band.wavelength, 0.0)
    blur = _blur_for(instrument.telescope, band.wavelength, band.fwhm_arcsec)
    return Optics(pixel, band.fwhm_arcsec, 0.0, instrument.telescope, band.wavelength, blur)


class TilePsf:
    """The PSF of one band of one tile.

    Attributes: `pixel_arcsec`, the native detector pixel; `factor`, native pixel over tile pixel;
    `noise`, the background's 1σ in a native pixel (nJy); `shape`, native y and x; `optics`.
    """

    def __init__(
        self,
        optics: Optics,
        factor: int,
        noise: float,
        shape: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self.optics, self.factor, self.noise, self.shape = optics, factor, noise, shape
        self.pixel_arcsec = optics.pixel_arcsec
        self.block = round(BLOCK_ARCSEC / self.pixel_arcsec)
        self.margin = round(MARGIN_ARCSEC / self.pixel_arcsec)
        ground = optics.telescope is None
        size = GROUND_SIZE if ground else SPACE_SIZE
        ellipticity = GROUND_ELLIPTICITY if ground else SPACE_ELLIPTICITY
        # In space only the Gaussian varies: it has to stay one, however small it is.
        blur = (optics.blur / (SIGMA * optics.fwhm_arcsec)) ** 2
        self._size_limit = 0.15 if ground else min(0.03, blur / 6.0)
        self._largest = GROUND_LARGEST if ground else min(SPACE_LARGEST, blur / 6.0)
        scale = np.array([[s[0], s[1], s[1], s[2], s[2], s[2]] for s in (size, *[ellipticity] * 2)])
        self._coefficients = scale * rng.standard_normal((3, 6))
        self._kernels: dict[tuple, np.ndarray] = {}

    def block_of(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row and column, from 0, of the squares that positions lie in or are nearest to."""
        rows, columns = self.blocks
        row = np.floor((np.asarray(y) + self.margin) / self.block).astype(int)
        column = np.floor((np.asarray(x) + self.margin) / self.block).astype(int)
        return row.clip(0, rows - 1), column.clip(0, columns - 1)

    @property
    def blocks(self) -> tuple[int, int]:
        """How many squares, down and across, cover the tile and its margin."""
        height, width = (-(-(side + 2 * self.margin) // self.block) for side in self.shape)
        return height, width

    def parameters(self, row: int, column: int) -> tuple[float, float, float]:
        """Size over the nominal one, e1 and e2 (on pixel axes) in a square."""
        v = (2.0 * row + 1.0) / self.blocks[0] - 1.0
        u = (2.0 * column + 1.0) / self.blocks[1] - 1.0
        size, e1, e2 = self._coefficients @ np.array([1.0, u, v, u * u, u * v, v * v])
        shrink = min(1.0, self._largest / max(np.hypot(e1, e2), 1e-12))
        size = 1.0 + np.clip(size, -self._size_limit, self._size_limit)
        return float(size), float(e1 * shrink), float(e2 * shrink)

    def transfer(
        self,
        row: int,
        column: int,
        frequency_y: Float[np.ndarray, " y"],
        frequency_x: Float[np.ndarray, " x"],
    ) -> Float32[np.ndarray, "y x"]:
        """Transfer function of the PSF in a square and a pixel; cycles per native pixel."""
        return self.optics.transfer(frequency_y, frequency_x, *self.parameters(row, column))

    def narrowed(
        self,
        row: int,
        column: int,
        frequency_y: Float[np.ndarray, " y"],
        frequency_x: Float[np.ndarray, " x"],
        variance: float,
    ) -> Float32[np.ndarray, "y x"]:
        """The same over the transfer function of a Gaussian of `variance` (pixel²)."""
        factors = [
            np.sinc(f) * np.exp(2.0 * np.pi**2 * variance * f**2)
            for f in (frequency_y, frequency_x)
        ]
        parameters = self.parameters(row, column)
        return self.optics.product(frequency_y, frequency_x, *parameters, *factors)

    def stamp(self, x: float, y: float, half: int) -> Float32[np.ndarray, "side side"]:
        """The image of a point of unit flux at x, y, integrated over native pixels.

        Cut to 2·half + 1 pixels a side around the pixel that holds the position; what falls beyond
        is missing from its sum.
        """
        row, column = (int(n[0]) for n in self.block_of(np.array([x]), np.array([y])))
        frequency, kernel = self._kernel(row, column, half)
        offset = np.arange(-half, half + 1)
        wave_y = np.exp(2j * np.pi * np.outer(offset - (y - np.rint(y)), frequency))
        positive = frequency[frequency >= 0]
        wave_x = np.exp(2j * np.pi * np.outer(positive, offset - (x - np.rint(x))))
        wave_x[1:] *= 2.0  # the other half is the conjugate
        return ((wave_y @ kernel) @ wave_x).real.astype(np.float32)

    def fwhm_arcsec(self, x: float, y: float) -> float:
        """FWHM before pixels, the mean (geometric) of those along both axes."""
        row, column = (int(n[0]) for n in self.block_of(np.array([x]), np.array([y])))
        return _fwhm(self.optics, *self.parameters(row, column))

    def _kernel(self, row: int, column: int, half: int) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies of a period that holds a stamp, and the weight of each wave."""
        period = 2 * (half + self.margin)
        count = int(np.ceil(0.5 * period * self.optics.oversampling))
        frequency = np.arange(-count, count + 1) / period
        key = (row, column, half)
        if key not in self._kernels:
            if len(self._kernels) > 64:
                self._kernels.clear()
            seen = self.transfer(row, column, frequency, frequency[frequency >= 0])
            self._kernels[key] = seen.astype(np.complex128) / period**2
        return frequency, self._kernels[key]


def tile_psf(
    simulate: SimulateConfig,
    survey_name: str,
    instrument: Instrument,
    band_name: str,
    frame: Frame,
) -> TilePsf:
    """The PSF of a band of a tile, as the config's seed makes it."""
    band = instrument.bands[band_name]
    optics = optics_of(instrument, band_name, simulate.seeing)
    rng = generator(simulate.seed, "psf", survey_name, band_name, frame.id)
    factor = band.native_pixels
    shape = (frame.shape[0] // factor, frame.shape[1] // factor)
    noise = background_noise(instrument, band_name, simulate.exposure)
    return TilePsf(optics, factor, noise, shape, rng)


def background_noise(instrument: Instrument, band_name: str, exposure: float) -> float:
    """1σ of the background in a native pixel (nJy) that gives the band's depth."""
    band, optics = instrument.bands[band_name], optics_of(instrument, band_name)
    if band.depth is not None:
        point = 10 ** (0.4 * (AB_NJY - band.depth)) / 5.0
        return point / np.sqrt(optics.noise_pixels() * exposure)
    sky = optics.pixel_arcsec**2 * 10 ** (0.4 * (band.electron_zeropoint - band.sky))
    electron = 10 ** (0.4 * (AB_NJY - band.electron_zeropoint))  # nJy of one a second
    return float(np.sqrt(sky / (band.exposure * exposure))) * electron


def add_points(
    image: Float32[np.ndarray, "y x"],
    psf: TilePsf,
    x: Float[np.ndarray, " point"],
    y: Float[np.ndarray, " point"],
    flux: Float[np.ndarray, " point"],
) -> None:
    """Add noiseless stars to a tile's image (nJy a pixel), in place.

    `x`, `y` are pixels of the tile, whose first one's centre is 0, 0. What is drawn is integrated
    over native pixels and then resampled as the archive does.
    """
    from jaisp.simulate.scene import Sources, draw_scene

    factor = psf.factor
    halo = KERNEL_HALF_WIDTH if factor > 1 else 0
    native = np.zeros((psf.shape[0] + 2 * halo, psf.shape[1] + 2 * halo), np.float32)
    places = [(np.asarray(place) + 0.5) / factor - 0.5 for place in (x, y)]
    draw_scene(native, psf, Sources.points(np.stack(places, axis=1), flux), halo)
    image += lanczos(native, factor) / np.float32(factor**2) if factor > 1 else native


@cache
def _blur_for(telescope: Telescope, edges: tuple[float, float], fwhm: float) -> float:
    """σ of the Gaussian that gives an Airy pattern its FWHM; at least a quarter of the FWHM's."""
    least = 0.25 * SIGMA * fwhm

    def excess(blur: float) -> float:
        return _fwhm(Optics(fwhm / 2.0, fwhm, 0.0, telescope, edges, blur)) - fwhm

    if excess(least) >= 0.0:
        return least
    return float(brentq(excess, least, SIGMA * fwhm, xtol=1e-5 * fwhm))


@lru_cache(maxsize=4096)
def _fwhm(optics: Optics, size: float = 1.0, e1: float = 0.0, e2: float = 0.0) -> float:
    if optics.telescope is None:
        return size * optics.fwhm_arcsec
    frequency = np.arange(-200, 201) / 50.0  # cycles per pixel
    seen = optics.transfer(frequency, frequency, size, e1, e2, pixels=False).astype(float)
    widths = []
    for axis in (0, 1):
        weight = seen.sum(axis=axis)

        def below_half(radius: float, weight: np.ndarray = weight) -> float:
            wave = np.cos(2.0 * np.pi * frequency * radius)
            return float((weight * wave).sum() / weight.sum()) - 0.5

        widths.append(
            2.0 * brentq(below_half, 1e-3, 2.0 * optics.fwhm_arcsec / optics.pixel_arcsec)
        )
    return float(np.sqrt(widths[0] * widths[1])) * optics.pixel_arcsec


@lru_cache(maxsize=96)
def _base(optics: Optics, frequency_y: bytes, frequency_x: bytes) -> np.ndarray:
    """The telescope's share of a transfer function, kept for grids that come again."""
    assert optics.telescope is not None
    grid = [np.frombuffer(f) / optics.pixel_arcsec for f in (frequency_y, frequency_x)]
    return telescope_transfer(optics.telescope, optics.edges, *grid)


@njit(cache=True)
@no_type_check
def _moffat(frequency_y, frequency_x, xx, xy, yy, table, density, factor_y, factor_x):
    """A table of a round profile, looked up at sheared frequencies."""
    seen = np.empty((len(frequency_y), len(frequency_x)), np.float32)
    last = len(table) - 2
    for i in range(len(frequency_y)):
        fy = frequency_y[i]
        for j in range(len(frequency_x)):
            fx = frequency_x[j]
            a, b = xx * fx + xy * fy, xy * fx + yy * fy
            place = density * np.sqrt(a * a + b * b)
            k = int(place)
            if k > last:
                seen[i, j] = 0.0
                continue
            value = table[k] + np.float32(place - k) * (table[k + 1] - table[k])
            seen[i, j] = value * factor_y[i] * factor_x[j]
    return seen


@njit(cache=True)
@no_type_check
def _blurred(frequency_y, frequency_x, base, xx, xy, yy, factor_y, factor_x):
    """A transfer function times that of a Gaussian."""
    seen = np.empty(base.shape, np.float32)
    for i in range(len(frequency_y)):
        fy = frequency_y[i]
        for j in range(len(frequency_x)):
            if base[i, j] == 0.0:
                seen[i, j] = 0.0
                continue
            fx = frequency_x[j]
            exponent = xx * fx * fx + 2.0 * xy * fx * fy + yy * fy * fy
            seen[i, j] = base[i, j] * np.exp(np.float32(-exponent)) * factor_y[i] * factor_x[j]
    return seen
