"""Colours of galaxies and stars, from spectra seen through top-hat filters."""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from jaisp.simulate.instruments import Band

REFERENCE = (691.0, 818.0)  # nm, Rubin i: every colour is relative to it
TEMPLATES = ("E", "Sbc", "Scd", "Im")  # Coleman, Wu & Weedman 1980, red to blue
REDSHIFTS = np.linspace(0.0, 6.0, 121)
LYMAN_ALPHA, LYMAN_LIMIT = 121.6, 91.2  # nm
SAMPLES = 60  # wavelengths a filter


def galaxy_colours(
    bands: list[Band],
    template: Float[np.ndarray, " source"],
    redshift: Float[np.ndarray, " source"],
    reddening: Float[np.ndarray, " source"],
) -> Float[np.ndarray, "source band"]:
    """Flux density in each band over that in the reference band.

    `template` 0 … 3 runs from elliptical to irregular, between two templates their geometric mean;
    `reddening` is E(B−V) of the attenuation law of Calzetti et al. 2000 (ApJ 533, 682).
    """
    edges = (REFERENCE, *(band.wavelength for band in bands))
    table = np.log(np.maximum(_template_table(edges), 1e-12))
    row = redshift / REDSHIFTS[1]
    flux = np.empty((len(redshift), len(edges)))
    for number, edge in enumerate(edges):
        flux[:, number] = map_coordinates(table[:, :, number], [template, row], order=1)
        rest_micron = np.mean(edge) / 1000.0 / (1.0 + redshift)
        flux[:, number] -= 0.4 * np.log(10.0) * reddening * calzetti(rest_micron)
    return np.exp(flux[:, 1:] - flux[:, :1])


def star_colours(
    bands: list[Band], temperature: Float[np.ndarray, " source"]
) -> Float[np.ndarray, "source band"]:
    """Flux density of a black body (kelvin) in each band over that in the reference band."""
    flux = []
    for edge in (REFERENCE, *(band.wavelength for band in bands)):
        wavelength = np.linspace(*edge, SAMPLES)
        exponent = 1.438777e7 / (wavelength * temperature[:, None])  # h c / k in nm kelvin
        flux.append((wavelength**-3 / np.expm1(exponent)).mean(axis=1))
    return np.stack(flux[1:], axis=1) / flux[0][:, None]


def calzetti(micron: Float[np.ndarray, " source"]) -> Float[np.ndarray, " source"]:
    """Attenuation k(λ) = A(λ) / E(B−V), continued flat outside 0.12–2.2 µm."""
    inverse = 1.0 / np.clip(micron, 0.12, 2.2)
    blue = -2.156 + 1.509 * inverse - 0.198 * inverse**2 + 0.011 * inverse**3
    red = -1.857 + 1.040 * inverse
    return 2.659 * np.where(inverse > 1.0 / 0.63, blue, red) + 4.05


@cache
def _template_table(edges: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Mean flux density of each template at each redshift in each band."""
    import galsim  # slow to import, and only its template files are wanted

    folder = Path(galsim.meta_data.share_dir) / "SEDs"
    table = np.empty((len(TEMPLATES), len(REDSHIFTS), len(edges)))
    for row, name in enumerate(TEMPLATES):
        angstrom, flux = np.loadtxt(folder / f"CWW_{name}_ext.sed", unpack=True)
        nm, density = angstrom / 10.0, flux * angstrom**2  # Fλ to Fν
        for column, edge in enumerate(edges):
            observed = np.linspace(*edge, SAMPLES)
            rest = observed / (1.0 + REDSHIFTS[:, None])
            seen = np.interp(rest, nm, density) * _intergalactic(rest, REDSHIFTS[:, None])
            table[row, :, column] = (seen / observed).mean(axis=1) / (1.0 / observed).mean()
    return table


def _intergalactic(rest: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Share of light left by hydrogen on the way: Lyα of Madau 1995, all gone below the limit."""
    depth = 0.0036 * (rest / LYMAN_ALPHA * (1.0 + redshift)) ** 3.46
    forest = np.where(rest < LYMAN_ALPHA, np.exp(-depth), 1.0)
    return np.where(rest < LYMAN_LIMIT, 0.0, forest)
