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
SECOND_RADIATION = 1.438777e7  # h c / k in nm kelvin


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
        exponent = SECOND_RADIATION / (wavelength * temperature[:, None])
        flux.append((wavelength**-3 / np.expm1(exponent)).mean(axis=1))
    return np.stack(flux[1:], axis=1) / flux[0][:, None]


def galaxy_wavelengths(
    bands: list[Band],
    template: Float[np.ndarray, " source"],
    redshift: Float[np.ndarray, " source"],
) -> Float[np.ndarray, "source band"]:
    """Mean wavelength (nm) of a galaxy's photons in each band, without dust."""
    edges = tuple(band.wavelength for band in bands)
    table, row = _wavelength_table(edges), redshift / REDSHIFTS[1]
    seen = [map_coordinates(table[:, :, n], [template, row], order=1) for n in range(len(edges))]
    return np.stack(seen, axis=1) if seen else np.empty((len(redshift), 0))


def star_wavelength(
    band: Band, temperature: Float[np.ndarray, " source"]
) -> Float[np.ndarray, " source"]:
    """Mean wavelength (nm) of a black body's photons (kelvin) in a band."""
    wavelength = np.linspace(*band.wavelength, SAMPLES)
    exponent = SECOND_RADIATION / (wavelength * temperature[:, None])
    photons = wavelength**-4 / np.expm1(exponent)
    return (photons * wavelength).sum(axis=1) / photons.sum(axis=1)


def calzetti(micron: Float[np.ndarray, " source"]) -> Float[np.ndarray, " source"]:
    """Attenuation k(λ) = A(λ) / E(B−V), continued flat outside 0.12–2.2 µm."""
    inverse = 1.0 / np.clip(micron, 0.12, 2.2)
    blue = -2.156 + 1.509 * inverse - 0.198 * inverse**2 + 0.011 * inverse**3
    red = -1.857 + 1.040 * inverse
    return 2.659 * np.where(inverse > 1.0 / 0.63, blue, red) + 4.05


@cache
def _template_table(edges: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Mean flux density of each template at each redshift in each band."""
    table = np.empty((len(TEMPLATES), len(REDSHIFTS), len(edges)))
    for column, edge in enumerate(edges):
        observed = np.linspace(*edge, SAMPLES)
        photons = _density(observed) / observed
        table[:, :, column] = photons.mean(axis=-1) / (1.0 / observed).mean()
    return table


@cache
def _wavelength_table(edges: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Mean wavelength of each template's photons at each redshift in each band."""
    table = np.empty((len(TEMPLATES), len(REDSHIFTS), len(edges)))
    for column, edge in enumerate(edges):
        observed = np.linspace(*edge, SAMPLES)
        # A little is left of what hydrogen took, so that no mean is of nothing.
        density = _density(observed)
        density += 1e-6 * density.max(axis=-1, keepdims=True) + 1e-30
        table[:, :, column] = density.mean(axis=-1) / (density / observed).mean(axis=-1)
    return table


def _density(observed: np.ndarray) -> np.ndarray:
    """Flux density Fν of each template at each redshift at wavelengths (nm)."""
    rest = observed / (1.0 + REDSHIFTS[:, None])
    left = _intergalactic(rest, REDSHIFTS[:, None])
    return np.stack([np.interp(rest, nm, flux) * left for nm, flux in _templates()])


@cache
def _templates() -> list[tuple[np.ndarray, np.ndarray]]:
    """Wavelength (nm) and Fν of each template."""
    import galsim  # slow to import, and only its template files are wanted

    folder = Path(galsim.meta_data.share_dir) / "SEDs"
    spectra = []
    for name in TEMPLATES:
        angstrom, flux = np.loadtxt(folder / f"CWW_{name}_ext.sed", unpack=True)
        spectra.append((angstrom / 10.0, flux * angstrom**2))
    return spectra


def _intergalactic(rest: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Share of light left by hydrogen on the way: Lyα of Madau 1995, all gone below the limit."""
    depth = 0.0036 * (rest / LYMAN_ALPHA * (1.0 + redshift)) ** 3.46
    forest = np.where(rest < LYMAN_ALPHA, np.exp(-depth), 1.0)
    return np.where(rest < LYMAN_LIMIT, 0.0, forest)
