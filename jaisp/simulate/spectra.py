"""Colours of galaxies and stars, from spectra seen through filters."""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from jaisp.simulate.instruments import RUBIN, Band

REFERENCE = RUBIN.bands["i"]  # every colour is relative to it
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
    filters = (REFERENCE, *bands)
    row = redshift / REDSHIFTS[1]
    flux = np.empty((len(redshift), len(filters)))
    for number, band in enumerate(filters):
        table = np.log(np.maximum(_flux_table(band), 1e-12))
        flux[:, number] = map_coordinates(table, [template, row], order=1)
        rest_micron = np.mean(band.wavelength) / 1000.0 / (1.0 + redshift)
        flux[:, number] -= 0.4 * np.log(10.0) * reddening * calzetti(rest_micron)
    return np.exp(flux[:, 1:] - flux[:, :1])


def galaxy_wavelengths(
    bands: list[Band],
    template: Float[np.ndarray, " source"],
    redshift: Float[np.ndarray, " source"],
) -> Float[np.ndarray, "source band"]:
    """Mean wavelength (nm) of a galaxy's photons in each band, without dust."""
    row = redshift / REDSHIFTS[1]
    seen = np.empty((len(redshift), len(bands)))
    for number, band in enumerate(bands):
        seen[:, number] = map_coordinates(_wavelength_table(band), [template, row], order=1)
    return seen


def star_colours(
    bands: list[Band], temperature: Float[np.ndarray, " source"]
) -> Float[np.ndarray, "source band"]:
    """Flux density of a black body (kelvin) in each band over that in the reference band."""
    flux = np.stack([_black_body(band, temperature)[0] for band in (REFERENCE, *bands)], axis=1)
    return flux[:, 1:] / flux[:, :1]


def star_wavelength(
    band: Band, temperature: Float[np.ndarray, " source"]
) -> Float[np.ndarray, " source"]:
    """Mean wavelength (nm) of a black body's photons (kelvin) in a band."""
    return _black_body(band, temperature)[1]


def _black_body(band: Band, temperature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean flux density (of any unit) and mean wavelength of photons."""
    nm, weight = passband(band)
    exponent = SECOND_RADIATION / (nm * temperature[:, None])
    density = nm**-3 / np.expm1(exponent)
    return _mean(density, weight), _mean(density, weight * nm) / _mean(density, weight)


@cache
def passband(band: Band) -> tuple[Float[np.ndarray, " nm"], Float[np.ndarray, " nm"]]:
    """Wavelengths (nm) and weights, of sum 1, whose mean of Fν is the AB flux density."""
    edge = (band.wavelength[1] - band.wavelength[0]) / SAMPLES / 2
    nm = np.linspace(band.wavelength[0] + edge, band.wavelength[1] - edge, SAMPLES)
    photons = np.ones(SAMPLES) if band.curve is None else _curve(band.curve, nm)
    weight = photons / nm
    return nm, weight / weight.sum()


def _curve(name: str, nm: np.ndarray) -> np.ndarray:
    """A bandpass file of GalSim at wavelengths in nm."""
    import galsim  # slow to import, and only its files are wanted

    path = Path(galsim.meta_data.share_dir) / "bandpasses" / name
    return np.interp(nm, *np.loadtxt(path, unpack=True, usecols=(0, 1)))


def calzetti(micron: Float[np.ndarray, " source"]) -> Float[np.ndarray, " source"]:
    """Attenuation k(λ) = A(λ) / E(B−V), continued flat outside 0.12–2.2 µm."""
    inverse = 1.0 / np.clip(micron, 0.12, 2.2)
    blue = -2.156 + 1.509 * inverse - 0.198 * inverse**2 + 0.011 * inverse**3
    red = -1.857 + 1.040 * inverse
    return 2.659 * np.where(inverse > 1.0 / 0.63, blue, red) + 4.05


def _mean(density: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sum over wavelengths; a product of matrices would depend on the threads at hand."""
    return (density * weight).sum(axis=-1)


@cache
def _flux_table(band: Band) -> np.ndarray:
    """Mean flux density of each template at each redshift."""
    nm, weight = passband(band)
    return _mean(_density(nm), weight)


@cache
def _wavelength_table(band: Band) -> np.ndarray:
    """Mean wavelength of each template's photons at each redshift."""
    nm, weight = passband(band)
    # A little is left of what hydrogen took, so that no mean is of nothing.
    density = _density(nm)
    density += 1e-6 * density.max(axis=-1, keepdims=True) + 1e-30
    return _mean(density, weight * nm) / _mean(density, weight)


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
