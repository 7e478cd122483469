"""Positions against SWarp's (Bertin et al. 2002, ASP Conf. 281, 228), an independent resampler."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.warp.kernel import resample
from jaisp.warp.pixel_map import pixel_map, sky_to_pixel
from tests.services.local import need
from tests.warp.images import centroid, gaussians, tan_wcs

SWARP = shutil.which("SWarp") or shutil.which("swarp")
SIDE, FWHM = 400, 3.5


def swarp(folder: Path, image: np.ndarray, tile: WCS, output: WCS) -> tuple[np.ndarray, WCS]:
    """SWarp's LANCZOS3 of a tile on the grid of `output`."""
    fits.writeto(folder / "tile.fits", image, tile.to_header())
    cards = output.to_header().tostring(sep="\n", padding=False)
    (folder / "coadd.head").write_text(f"NAXIS1  = {SIDE}\nNAXIS2  = {SIDE}\n{cards}\nEND\n")
    options = {
        "RESAMPLING_TYPE": "LANCZOS3", "SUBTRACT_BACK": "N", "COMBINE": "N", "NTHREADS": "1",
        "WRITE_XML": "N", "VERBOSE_TYPE": "QUIET", "WEIGHT_TYPE": "NONE", "COPY_KEYWORDS": "",
        "RESAMPLE_DIR": str(folder), "FSCALASTRO_TYPE": "FIXED", "DELETE_TMPFILES": "N",
        "PROJECTION_ERR": "0",
    }  # fmt: skip
    command = [str(SWARP), "tile.fits"]
    for key, value in options.items():
        command += [f"-{key}", value]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    with fits.open(folder / "tile.resamp.fits") as hdus:
        return np.array(hdus[0].data, np.float32), WCS(hdus[0].header)


def centroids(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Centroids of stars near x, y."""
    corners = np.rint(np.stack([x, y], axis=1)).astype(int)
    stamps = [image[i - 9 : i + 10, j - 9 : j + 10].astype(float) for j, i in corners]
    return corners + np.array([centroid(stamp, FWHM) for stamp in stamps])


def test_stars_are_where_swarp_puts_them(tmp_path):
    need(SWARP is not None, "SWarp is not installed (Debian package swarp)")
    header = tan_wcs(size=SIDE, projection="TPV").to_header()
    for axis in (1, 2):
        for term, value in ((1, 1.0), (4, 2e-2), (7, 1e-1)):
            header[f"PV{axis}_{term}"] = value
    tile, output = WCS(header), tan_wcs(size=SIDE, angle=3.0)
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(np.arange(60, 350, 30), np.arange(60, 350, 30)), -1)
    x, y = (places.reshape(-1, 2) + rng.uniform(-0.5, 0.5, (100, 2))).T
    ra, dec = output.all_pix2world(x, y, 0)
    image = gaussians((SIDE, SIDE), *sky_to_pixel(tile, ra, dec), FWHM, 1e4).astype(np.float32)

    theirs, grid = swarp(tmp_path, image, tile, output)
    flags = np.zeros(image.shape, np.uint8)
    ours = resample(image, image + 1, flags, pixel_map(output, (SIDE, SIDE), tile)).flux
    shift = output.wcs.crpix - grid.wcs.crpix
    apart = centroids(ours, x, y) - centroids(theirs, x - shift[0], y - shift[1]) - shift
    # The two Lanczos kernels differ by 1 mas at most; neither has a zero point of its own.
    assert np.sqrt(np.mean(apart**2)) * 200 < 1.0
    assert np.abs(np.median(apart, axis=0)).max() * 200 < 0.3
