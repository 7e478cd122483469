"""Real images: every one reads, and instruments meet where they should."""

from pathlib import Path

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats
from scipy.fft import fft2, ifft2

from jaisp.archives.tile import Plane
from jaisp.sky import Cell, plane_wcs
from jaisp.warp.pixel_map import pixel_map
from jaisp.warp.planes import warp_tile
from tests.warp.images import open_tile, tile_of

pytestmark = pytest.mark.realdata
ALL = slice(0, 10**6)


def image(path: Path, hdu: int | str = 0, number: int | None = None, **changes):
    changes = {"zeropoint": None, "psf_fwhm_arcsec": None} | changes
    return tile_of(path, has_noise=False, science=Plane(path, hdu, number), **changes)


def whole(reader):
    return reader.section(slice(0, reader.shape[0]), slice(0, reader.shape[1]))


@pytest.fixture
def g202627(real_data) -> Path:
    return real_data / "kids_viking_galex_G202627"


@pytest.mark.parametrize(("other", "shift"), [("VISTA_K", (0.045, 0.004)), ("GALEX_NUV", None)])
def test_instruments_meet_on_one_grid(g202627, other, shift):
    """K against r: the offset that was measured on these files by other software."""
    grid, pixels = 0.2, 512
    cell = Cell("field", 130.61785, -0.27159, grid * pixels, np.zeros((1, 2)))
    output = plane_wcs(cell, grid, -grid * pixels / 2, -grid * pixels / 2, (pixels, pixels))
    planes = []
    for name in ("VST_r", other):
        reader = open_tile(image(g202627 / f"{name}.fits", subtract_sky=True))
        positions = pixel_map(output, (pixels, pixels), reader.wcs)
        planes.append(warp_tile(reader, output, positions, "lanczos3"))
    found = offset(*(np.arcsinh(p.flux / np.nanmedian(p.noise)) for p in planes)) * grid
    if shift is None:
        assert np.hypot(*found) < 0.6
    else:
        assert np.hypot(found[0] - shift[0], found[1] - shift[1]) < 0.06


def offset(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(x, y) in pixels by which `other` lies off `reference`: peak of the cross-correlation."""
    window = np.outer(*(np.hanning(size) for size in reference.shape))
    spectra = [fft2(np.nan_to_num(a - np.nanmedian(a)) * window) for a in (reference, other)]
    correlation = np.fft.fftshift(ifft2(np.conj(spectra[0]) * spectra[1]).real)
    y, x = np.unravel_index(np.argmax(correlation), correlation.shape)
    around = correlation[y - 1 : y + 2, x - 1 : x + 2]
    # A parabola through the peak and its neighbours.
    dx = (around[1, 0] - around[1, 2]) / (around[1, 0] + around[1, 2] - 2 * around[1, 1]) / 2
    dy = (around[0, 1] - around[2, 1]) / (around[0, 1] + around[2, 1] - 2 * around[1, 1]) / 2
    return np.array([x + dx, y + dy]) - np.array(correlation.shape[::-1]) // 2


@pytest.mark.parametrize(
    ("name", "saturated", "fwhm"), [("VST_r", 35, 0.6), ("VISTA_K", 7, 0.9), ("GALEX_NUV", 0, 5.0)]
)
def test_images_without_planes(g202627, name, saturated, fwhm):
    reader = open_tile(image(g202627 / f"{name}.fits", subtract_sky=True))
    part = whole(reader)
    assert (part.flags == 2).sum() == saturated
    assert (part.noise > 0).all()
    _, _, sigma = sigma_clipped_stats(part.flux)
    assert np.median(part.noise) == pytest.approx(sigma, rel=0.4)
    assert reader.psf_fwhm_arcsec(100.0, 100.0) == pytest.approx(fwhm, rel=0.15)


@pytest.mark.parametrize("band", ["u", "r", "J"])
def test_large_compressed_images_without_a_wcs(real_data, band):
    given = {"ra": 129.0, "dec": -1.0, "pixel_arcsec": 0.3}
    path = real_data / "kids_viking_9band_nowcs" / f"{band}.fits"
    reader = open_tile(image(path, 1, wcs=given))
    assert reader.shape == (2600, 2600)
    part = reader.section(slice(1000, 1300), slice(1000, 1400))
    assert part.flux.dtype.isnative
    scatter = 1.4826 * np.median(np.abs(part.flux - np.median(part.flux)))
    assert np.median(part.noise) == pytest.approx(scatter, rel=0.25)
    assert 0.5 < reader.psf_fwhm_arcsec(1300.0, 1300.0) < 1.5


def test_cubes_of_hsc_and_an_fk5_image_of_hst(real_data):
    folder = real_data / "hsc_hst_cosmos"
    readers = [open_tile(image(folder / "Cut_HSC.fits", 0, number)) for number in range(5)]
    assert all(reader.shape == (50, 50) and reader.wcs.naxis == 2 for reader in readers)
    assert len({float(whole(reader).flux.std()) for reader in readers}) == 5
    stamp = Plane(folder / "PSF_HST.fits", 0)
    hubble = open_tile(image(folder / "Cut_HST.fits", psf=stamp))
    assert hubble.pixel_arcsec == pytest.approx(0.03, rel=1e-4)
    assert hubble.psf_fwhm_arcsec(0.0, 0.0) == pytest.approx(0.1, abs=0.02)


def test_euclid_planes_in_one_file(real_data):
    paths = sorted((real_data / "euclid_q1_des" / "vis_nisp_30as").glob("*.fits"))
    assert len(paths) == 3
    for path in paths:
        for band, zeropoint in (("VIS", 24.6), ("NIR_Y", 29.8), ("NIR_J", 30.0), ("NIR_H", 29.9)):
            tile = tile_of(
                path,
                science=Plane(path, f"{band}_FLUX"),
                noise=Plane(path, f"{band}_RMS"),
                psf=Plane(path, f"{band}_PSF"),
                zeropoint="MAGZERO",
            )
            reader = open_tile(tile)
            part = whole(reader)
            assert reader.zeropoint == zeropoint
            assert np.nanmax(part.noise) < 1e3  # the sentinels of 1e16 are no noise
            assert np.isnan(part.flux[part.flags != 0]).all()
            assert 0.1 < reader.psf_fwhm_arcsec(0.0, 0.0) < 0.7
