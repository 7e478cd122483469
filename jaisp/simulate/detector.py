"""What a camera makes of the sky: noise, saturation, cosmic rays, bad columns, a dead rim."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from scipy import ndimage

from jaisp.simulate.instruments import Instrument
from jaisp.simulate.psf import AB_NJY, background_noise, optics_of
from jaisp.simulate.resample import KERNEL_HALF_WIDTH, lanczos

SILICON = 1100.0  # nm: bands below it are a CCD's
SATURATED_SHARE = 0.98  # of a full pixel: the level that the header gives
RIM_PIXELS = 12

# Bits of the mask planes.
BAD, SATURATED, COSMIC_RAY, EDGE = (np.uint8(1 << bit) for bit in range(4))


@dataclass(frozen=True)
class Camera:
    """One band of one instrument on its own detector pixels; fluxes in nJy a pixel."""

    pixel_arcsec: float
    noise: float  # 1σ of the sky background
    electrons: float  # per nJy
    full: float  # flux at which a pixel saturates
    bleeds: bool


@dataclass
class Exposure:
    """Planes of a tile, in nJy a pixel; `variance` holds the sources' noise, `background` not."""

    science: Float32[np.ndarray, "y x"]
    variance: Float32[np.ndarray, "y x"]
    background: Float32[np.ndarray, "y x"]
    mask: UInt8[np.ndarray, "y x"]


def camera_of(instrument: Instrument, band_name: str, exposure: float) -> Camera:
    """The band as its depth and saturation make it, exposed `exposure` times as long."""
    band = instrument.bands[band_name]
    optics = optics_of(instrument, band_name)
    seconds = band.exposure * exposure
    return Camera(
        pixel_arcsec=optics.pixel_arcsec,
        noise=background_noise(instrument, band_name, exposure),
        electrons=seconds * 10 ** (0.4 * (band.electron_zeropoint - AB_NJY)),
        full=10 ** (0.4 * (AB_NJY - band.saturation)) * optics.peak_share(),
        bleeds=band.wavelength[1] < SILICON,
    )


def expose(
    sky: Float32[np.ndarray, "y x"],
    camera: Camera,
    instrument: Instrument,
    rng: np.random.Generator,
) -> Exposure:
    """Add noise and defects to a noiseless sky, which is overwritten."""
    if instrument.separate_planes:
        depth = _dithered_depth(sky.shape, 12.0 / camera.pixel_arcsec, rng)
    else:
        depth = _smooth_depth(sky.shape, rng)
    background = np.float32(camera.noise**2) / depth
    variance = background + np.maximum(sky, 0) / (depth * np.float32(camera.electrons))
    noise = rng.standard_normal(sky.shape, dtype=np.float32)
    noise *= np.sqrt(variance)
    sky += noise
    exposure = Exposure(sky, variance, background, np.zeros(sky.shape, np.uint8))
    _saturate(exposure, camera)
    _add_cosmic_rays(exposure, camera, instrument.cosmic_rays_per_arcmin2, rng)
    _add_bad_column(exposure, camera, rng)
    return exposure


def serve(native: Exposure, factor: int) -> Exposure:
    """Resample planes onto pixels `factor` times smaller, as a mosaic does; Lanczos-3.

    Native planes are KERNEL_HALF_WIDTH pixels larger on every side than what is served. Variances
    are scaled with the flux, so that they leave out the correlation of the noise, as real ones do.
    """
    inner = slice(KERNEL_HALF_WIDTH, -KERNEL_HALF_WIDTH)
    # All that the kernel carries a defect to is bad.
    spread = ndimage.maximum_filter(native.mask, 2 * KERNEL_HALF_WIDTH + 1)
    area = np.float32(factor**2)
    return Exposure(
        science=lanczos(native.science, factor) / area,
        variance=_repeat(native.variance[inner, inner], factor) / area**2,
        background=_repeat(native.background[inner, inner], factor) / area**2,
        mask=_repeat(spread[inner, inner], factor),
    )


def kill_rim(exposure: Exposure) -> None:
    """No data along the tile's edge: NaN."""
    dead = np.ones(exposure.mask.shape, bool)
    dead[RIM_PIXELS:-RIM_PIXELS, RIM_PIXELS:-RIM_PIXELS] = False
    exposure.science[dead] = np.nan
    exposure.mask[dead] |= EDGE


def _smooth_depth(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Relative exposure of a stack of many visits: a slope of a few per cent."""
    slope_y, slope_x = rng.uniform(-0.08, 0.08, 2)
    y = np.linspace(-slope_y, slope_y, shape[0], dtype=np.float32)
    x = np.linspace(-slope_x, slope_x, shape[1], dtype=np.float32)
    return 1.0 + y[:, None] + x


def _dithered_depth(shape: tuple[int, int], gap: float, rng: np.random.Generator) -> np.ndarray:
    """Relative exposure of four dithers: three where the gaps between detectors fell."""
    y, x = np.zeros(shape[0], bool), np.zeros(shape[1], bool)
    for axis in (y, x):
        for start in rng.uniform(0, len(axis), 2):
            axis[int(start) : int(start + gap)] = True
    return np.where(y[:, None] | x, np.float32(0.75), np.float32(1.0))


def _saturate(exposure: Exposure, camera: Camera) -> None:
    level = np.float32(SATURATED_SHARE * camera.full)
    saturated = exposure.science >= level
    if camera.bleeds:
        for rows, columns in ndimage.find_objects(ndimage.label(saturated)[0]):
            length = rows.stop - rows.start
            if length < 4:
                continue
            middle = (columns.start + columns.stop - 1) // 2
            trail = slice(max(0, rows.start - 3 * length), rows.stop + 3 * length)
            saturated[trail, middle : middle + 1 + length // 12] = True
    exposure.science[saturated] = np.float32(camera.full)
    exposure.mask[saturated] |= SATURATED


def _add_cosmic_rays(
    exposure: Exposure, camera: Camera, per_arcmin2: float, rng: np.random.Generator
) -> None:
    """Straight tracks, found and flagged by the archive."""
    height, width = exposure.mask.shape
    area = height * width * camera.pixel_arcsec**2 / 3600.0
    for _ in range(rng.poisson(per_arcmin2 * area)):
        length = 2.0 + rng.exponential(8.0)
        along = np.arange(0.0, length, 0.5)
        angle = rng.uniform(0.0, np.pi)
        x = np.rint(rng.uniform(0, width) + along * np.cos(angle)).astype(int)
        y = np.rint(rng.uniform(0, height) + along * np.sin(angle)).astype(int)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        exposure.science[y[inside], x[inside]] += camera.noise * rng.uniform(20.0, 300.0)
        exposure.mask[y[inside], x[inside]] |= COSMIC_RAY


def _add_bad_column(exposure: Exposure, camera: Camera, rng: np.random.Generator) -> None:
    height, width = exposure.mask.shape
    column, start = rng.integers(width), rng.integers(height)
    exposure.science[start : start + height // 2, column] = np.float32(-30.0 * camera.noise)
    exposure.mask[start : start + height // 2, column] |= BAD


def _repeat(plane: np.ndarray, factor: int) -> np.ndarray:
    return plane.repeat(factor, axis=0).repeat(factor, axis=1)
