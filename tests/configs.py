"""Small configs that tests build on."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.io import fits
from astropy.wcs import WCS

CENTRE = (150.0, 2.0)


def small_config(**changes: Any) -> dict[str, Any]:
    """Two surveys of one band each over one patch of 12.8″."""
    content: dict[str, Any] = {
        "run": "small",
        "sky": {
            "ra": CENTRE[0],
            "dec": CENTRE[1],
            "width_arcmin": 12.8 / 60,
            "height_arcmin": 12.8 / 60,
        },
        "patch": {"arcsec": 12.8},
        "split": {"test": 0.0, "validation": 0.0},
        "surveys": {"sharp": survey("sharp", 0.1), "wide": survey("wide", 0.2)},
    }
    return content | changes


def survey(name: str, pixel_arcsec: float) -> dict[str, Any]:
    """A survey of band r in one file, `NAME.fits`."""
    image = {
        "band": "r",
        "science": {"path": f"{name}.fits"},
        "noise": {"kind": "rms", "hdu": "RMS"},
        "zeropoint": "MAGZERO",
        "psf": {"fwhm_arcsec": 0.7},
    }
    return {
        "bands": ["r"],
        "pixel_arcsec": pixel_arcsec,
        "archive": {"kind": "files", "images": [image]},
    }


def write_config(folder: Path, content: dict[str, Any]) -> Path:
    """Write a config as a user would keep it."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def write_tile(
    path: Path, pixel_arcsec: float, size_arcsec: float = 20.0, seed: int = 0, wcs: bool = True
) -> None:
    """A tile of noise with one Gaussian source at CENTRE, its RMS plane and a zero point."""
    pixels = int(size_arcsec / pixel_arcsec)
    header = fits.Header({"MAGZERO": 31.4})
    if wcs:
        plane = WCS(naxis=2)
        plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        plane.wcs.crval = CENTRE
        plane.wcs.cdelt = [-pixel_arcsec / 3600, pixel_arcsec / 3600]
        plane.wcs.crpix = [(pixels + 1) / 2, (pixels + 1) / 2]
        header.update(plane.to_header())
    y, x = (np.indices((pixels, pixels)) - (pixels - 1) / 2) * pixel_arcsec
    flux = np.random.default_rng(seed).normal(0.0, 1.0, (pixels, pixels))
    flux += 200 * np.exp(-(x**2 + y**2) / (2 * 0.3**2))
    hdus = [
        fits.PrimaryHDU(flux.astype(np.float32), header),
        fits.ImageHDU(np.ones((pixels, pixels), np.float32), name="RMS"),
    ]
    fits.HDUList(hdus).writeto(path)


def write_small_field(folder: Path, **changes: Any) -> Path:
    """The tiles of `small_config` and the config itself; returns its path."""
    write_tile(folder / "sharp.fits", 0.1, seed=1)
    write_tile(folder / "wide.fits", 0.2, seed=2)
    return write_config(folder, small_config(**changes))
