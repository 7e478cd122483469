"""Where a tile shows a source: errors of its WCS, and refraction by the atmosphere.

Neither stands in a tile's header. Both are recorded beside the archive (`offsets.ecsv`, and the
effective wavelengths in `truth.ecsv`), and both shift sources' images.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.frames import Frame
from jaisp.simulate.instruments import Instrument, Site
from jaisp.simulate.seeds import generator
from jaisp.simulate.spectra import star_wavelength

LOWEST_AIRMASS, HIGHEST_AIRMASS = 1.05, 1.35  # of a coadd, as one exposure
REFERENCE_TEMPERATURE = 5500.0  # kelvin: of the stars that the tile's WCS was fitted to
ARCSEC = 206264.806  # a radian


@dataclass(frozen=True)
class Conditions:
    """How a tile was observed, as if in one exposure.

    `parallactic_deg` is the position angle of the zenith, from north through east.
    """

    airmass: float
    parallactic_deg: float


def tile_offset(simulate: SimulateConfig, survey_name: str, frame: Frame) -> tuple[float, float]:
    """Where the tile's WCS puts a source, less where it is: arcsec to the west and north.

    The same for all bands of a tile; `astrometric_offset_mas` is its rms an axis on the ground,
    times the instrument's `astrometry` elsewhere.
    """
    rng = generator(simulate.seed, "offset", survey_name, frame.id)
    west, north = 1e-3 * simulate.astrometric_offset_mas * frame.astrometry * rng.normal(size=2)
    return float(west), float(north)


def conditions(simulate: SimulateConfig, survey_name: str, frame: Frame) -> Conditions:
    """Airmass and direction of the zenith of a tile of a survey on the ground."""
    rng = generator(simulate.seed, "airmass", survey_name, frame.id)
    airmass = rng.uniform(LOWEST_AIRMASS, HIGHEST_AIRMASS)
    return Conditions(float(airmass), float(rng.uniform(0.0, 360.0)))


def refraction(
    simulate: SimulateConfig,
    survey_name: str,
    instrument: Instrument,
    band_name: str,
    frame: Frame,
    temperature: Float[np.ndarray, " star"],
) -> tuple[np.ndarray, np.ndarray]:
    """Shift by differential chromatic refraction of stars (black bodies, kelvin) in a tile.

    Arcsec to the west and to the north, arrays like `temperature`; 0 in space, and in bands redder
    than g. A star of REFERENCE_TEMPERATURE isn't shifted: tiles are aligned on such.
    """
    wavelength = star_wavelength(instrument.bands[band_name], temperature)
    return wavelength_shift(simulate, survey_name, instrument, band_name, frame, wavelength)


def wavelength_shift(
    simulate: SimulateConfig,
    survey_name: str,
    instrument: Instrument,
    band_name: str,
    frame: Frame,
    wavelength: Float[np.ndarray, " source"],
) -> tuple[np.ndarray, np.ndarray]:
    """The same for sources of given effective wavelengths (nm) in the band."""
    if not refracts(instrument, band_name):
        return np.zeros_like(wavelength), np.zeros_like(wavelength)
    assert instrument.site is not None
    seen = conditions(simulate, survey_name, frame)
    reference = star_wavelength(instrument.bands[band_name], np.array([REFERENCE_TEMPERATURE]))
    tangent = np.sqrt(seen.airmass**2 - 1.0)
    bending = air_index(wavelength, instrument.site) - air_index(reference, instrument.site)
    towards_zenith = ARCSEC * tangent * bending
    angle = np.radians(seen.parallactic_deg)
    return -towards_zenith * np.sin(angle), towards_zenith * np.cos(angle)


def refracts(instrument: Instrument, band_name: str) -> bool:
    """Whether a band's sources are shifted: u and g, and their like, on the ground."""
    blue = sum(instrument.bands[band_name].wavelength) / 2 < LONGEST_REFRACTED
    return instrument.site is not None and blue


LONGEST_REFRACTED = 560.0  # nm: the middle of the reddest band with refraction


def air_index(wavelength: Float[np.ndarray, " n"], site: Site) -> Float[np.ndarray, " n"]:
    """Refractive index of air, less 1: Filippenko 1982 (PASP 94, 715), equations 1 to 3.

    After Edlén 1953 and Barrell 1951. Wavelengths in nm; pressures in mmHg, temperature in °C.
    """
    inverse = (1000.0 / wavelength) ** 2  # μm⁻²
    standard = 64.328 + 29498.1 / (146.0 - inverse) + 255.4 / (41.0 - inverse)
    pressure, temperature = site.pressure, site.temperature
    warm = 1.0 + 0.003661 * temperature
    dry = standard * pressure * (1.0 + (1.049 - 0.0157 * temperature) * 1e-6 * pressure)
    water = (0.0624 - 0.000680 * inverse) * site.water_pressure / warm
    return 1e-6 * (dry / (720.883 * warm) - water)
