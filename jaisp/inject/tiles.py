"""Tiles with injected sources: drawn on the detector's pixels, served as the tile is, and written.

An empty tile is Gaussian noise of its home's noise plane, without the noise of its sources, on the
detector's pixels; where a real mosaic's noise is correlated, that is not reproduced. A crowded tile
is its home with sources added. Masks are the home's. Sources add no noise of their own.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits
from astropy.stats import gaussian_fwhm_to_sigma
from jaxtyping import Float, Float32, Float64, Int

from jaisp.archives import Plane, Tile
from jaisp.errors import TileError
from jaisp.files import sha256
from jaisp.inject.effective import add_star
from jaisp.inject.views import View, background_sigma, to_native
from jaisp.simulate.resample import KERNEL_HALF_WIDTH, lanczos
from jaisp.store.layout import Flag
from jaisp.warp.fits_plane import reading

SCALING = (
    *("BSCALE", "BZERO", "BLANK", "BSOFTEN", "BOFFSET"),
    *("CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM"),
)
RMS = "RMS"


def starlight(
    view: View,
    source: Int[np.ndarray, " point"],
    away: Float[np.ndarray, "point 2"],
    flux: Float[np.ndarray, " point"],
) -> Float32[np.ndarray, "y x"]:
    """The noiseless light of points on a tile's pixels, nJy.

    source: which source each belongs to. away: arcsec (west, north) from it. flux: nJy.
    """
    factor = view.psf.psf.factor
    halo = KERNEL_HALF_WIDTH if factor > 1 else 0
    shape = [length // factor + 2 * halo for length in view.reader.shape]
    canvas = np.zeros(shape, np.float32)
    near = np.flatnonzero(view.margin[source] > -view.psf.half * view.psf.psf.pixel_arcsec)
    place = view.native[source[near]]
    place = place + np.einsum("nij,nj->ni", view.jacobian[source[near]], away[near])
    places = view.psf.place_of(*place.T)
    for (x, y), star, number in zip(place, flux[near], places, strict=True):
        coefficients = view.psf.coefficients(int(number))
        add_star(canvas, coefficients, x + halo, y + halo, star, view.psf.half)
    return served(canvas, factor)


def empty_tile(
    view: View, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, "y x"], Float32[np.ndarray, "y x"]]:
    """A tile without any source, and its 1σ noise, in the tile's units."""
    part = view.reader.section(*(slice(0, length) for length in view.reader.shape))
    sigma = background_sigma(view, part)
    known = np.isfinite(sigma)
    if not known.any():
        raise TileError("its noise plane tells nothing")
    factor = view.psf.psf.factor
    native = to_native(np.where(known, sigma, np.float32(np.median(sigma[known]))), factor)
    if factor > 1:
        native = np.pad(native, KERNEL_HALF_WIDTH, mode="edge")
    noise = rng.standard_normal(native.shape, dtype=np.float32)
    science = served(noise * native, factor)
    science[(part.flags & np.uint8(Flag.EDGE)) != 0] = np.nan
    return science, sigma


def served(canvas: Float32[np.ndarray, "y x"], factor: int) -> Float32[np.ndarray, "fine_y fine_x"]:
    """Native pixels (and a rim around them) on the tile's, as its archive resamples them."""
    if factor == 1:
        return canvas
    return lanczos(canvas, factor) / np.float32(factor**2)


def write_tile(
    view: View,
    science: Float32[np.ndarray, "y x"],
    sigma: Float32[np.ndarray, "y x"] | None,
    path: Path,
) -> Tile:
    """Write a derived tile, and its noise if it is another than its home's; returns what it is."""
    header = view.reader.header.copy()
    for key in SCALING:
        header.remove(key, ignore_missing=True, remove_all=True)
    hdus: list = [fits.PrimaryHDU(science, header)]
    if sigma is not None:
        hdus.append(fits.ImageHDU(sigma, name=RMS))
    path.parent.mkdir(parents=True, exist_ok=True)
    with reading(path.name), warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        fits.HDUList(hdus).writeto(path, overwrite=True, output_verify="silentfix+ignore")
    about = None, path.stat().st_size, sha256(path)
    tile = replace(view.tile, science=Plane(path, 0, *about))
    if sigma is not None:
        tile = replace(tile, noise=Plane(path, RMS, *about), noise_kind="rms")
    return tile


def centroids(
    flux: Float32[np.ndarray, "y x"],
    start: Float64[np.ndarray, "source 2"],
    fwhm: Float[np.ndarray, " source"],
) -> Float64[np.ndarray, "source 2"]:
    """Windowed centroids (sep, as SExtractor's XWIN) on native pixels; NaN where none is found.

    They start from the pixel that holds the source. fwhm: in pixels.
    """
    known = np.isfinite(flux)
    image = np.where(known, flux, np.float32(0))
    column, row = np.rint(start).T
    mask = None if known.all() else ~known
    x, y, flag = sep.winpos(image, column, row, fwhm * gaussian_fwhm_to_sigma, mask=mask)
    found = np.stack([x, y], axis=1)
    found[(flag & sep.OBJ_TRUNC) != 0] = np.nan
    return found
