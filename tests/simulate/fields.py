"""Configs and sources that the tests of the simulated sky share."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from jaisp.config import Config, parse_config
from jaisp.simulate.catalogue import Catalogue

SURVEYS = {
    "rubin": {"bands": ["g", "r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}},
    "euclid_q1": {"bands": ["VIS", "H"], "pixel_arcsec": 0.1, "archive": {"kind": "simulated"}},
}


def field_config(**changes: Any) -> Config:
    """Two patches of 25.6″ at the edge of RA 0, seen by two surveys in two bands each."""
    content: dict[str, Any] = {
        "run": "field",
        "sky": {"ra": 0.001, "dec": -28.1, "width_arcmin": 51.2 / 60, "height_arcmin": 25.6 / 60},
        "patch": {"arcsec": 25.6},
        "surveys": SURVEYS,
        "simulate": {"overlap_arcsec": 10.0},
    }
    return parse_config(content | changes, Path("field.yaml"))


def star(wcs: WCS, x: float, y: float, flux: float, bands: int = 1) -> Catalogue:
    """One star at a pixel of a tile."""
    ra, dec = wcs.all_pix2world([x], [y], 0)
    return source(float(ra[0]), float(dec[0]), flux, bands=bands)


def source(
    ra: float,
    dec: float,
    flux: float,
    radius: float = 0.0,
    e1: float = 0.0,
    e2: float = 0.0,
    bands=1,
) -> Catalogue:
    """A star, or a disc of a given radius (arcsec)."""
    one = np.ones(1)
    return Catalogue(
        ra=ra * one,
        dec=dec * one,
        type=np.array(["spiral" if radius else "star"]),
        redshift=0 * one,
        bulge_radius=0 * one,
        disc_radius=radius * one,
        bulge_fraction=0 * one,
        e1=e1 * one,
        e2=e2 * one,
        template=0 * one,
        temperature=0 * one,
        bulge_flux=np.zeros((1, bands)),
        disc_flux=np.full((1, bands), flux),
        wavelength=np.full((1, bands), 500.0),
    )


def moments(image: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Centroid x, y and second moments of all light, without noise."""
    y, x = np.indices(image.shape, float)
    light = image.astype(float)
    total = light.sum()
    mean_x, mean_y = (x * light).sum() / total, (y * light).sum() / total
    dx, dy = x - mean_x, y - mean_y
    xx, xy, yy = ((a * light).sum() / total for a in (dx * dx, dx * dy, dy * dy))
    return mean_x, mean_y, np.array([[xx, xy], [xy, yy]])


def windowed(image: np.ndarray, x: float, y: float, width: float) -> tuple[float, float]:
    """Centroid within a Gaussian window that follows it (Bertin & Arnouts 1996: XWIN)."""
    rows, columns = np.indices(image.shape, float)
    for _ in range(30):
        window = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / width**2) * image
        x += 2.0 * float((window * (columns - x)).sum() / window.sum())
        y += 2.0 * float((window * (rows - y)).sum() / window.sum())
    return x, y
