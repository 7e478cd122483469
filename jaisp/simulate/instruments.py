"""The optics and depth of the instruments that can be simulated."""

from dataclasses import dataclass

from jaisp.config.survey import Survey
from jaisp.errors import UserError
from jaisp.simulate.transfer import Telescope


@dataclass(frozen=True)
class Band:
    """One filter of one instrument.

    `wavelength` is the band's edges in nm (a top hat). `depth` is the 5σ AB magnitude of a point
    source, `electron_zeropoint` the AB magnitude of one electron per second, `exposure` the
    seconds that the depth stands for. `saturation` is the AB magnitude of a star whose central
    pixel just fills up.
    """

    wavelength: tuple[float, float]
    fwhm_arcsec: float
    depth: float
    zeropoint: float
    electron_zeropoint: float
    exposure: float
    saturation: float
    native_pixels: int = 1  # side of a detector pixel in pixels of the tile


@dataclass(frozen=True)
class Site:
    """The air above a telescope: pressures in mmHg, temperature in °C."""

    pressure: float
    temperature: float
    water_pressure: float


@dataclass(frozen=True, eq=False)
class Instrument:
    """A camera and how its archive serves tiles.

    On the ground `site` is given and the PSF is Moffat's; in space `telescope` is. `astrometry` is
    the rms of its tiles' offsets over that of the config.

    `separate_planes`: science, rms and flags stand in three files, and the rms tells of the
    background only; else image, variance (with the sources' noise) and mask are HDUs of one file.
    """

    pixel_arcsec: float
    moffat_beta: float
    telescope: Telescope | None
    site: Site | None
    astrometry: float
    distorted: bool
    separate_planes: bool
    cosmic_rays_per_arcmin2: float
    unit: str
    bands: dict[str, Band]


PACHON = Site(pressure=561.0, temperature=11.5, water_pressure=5.0)  # 2650 m
EUCLID = Telescope(diameter=1.2, obscuration=0.36, struts=3, strut_width=0.012)

# Depth: coadded 5σ of Ivezić et al. 2019 (ApJ 873, 111; table 1) after a tenth of the survey.
# Zero points: SMTN-002. Exposures: the visits of one year, 30 s each.
RUBIN = Instrument(
    pixel_arcsec=0.2,
    moffat_beta=3.0,
    telescope=None,
    site=PACHON,
    astrometry=1.0,
    distorted=True,
    separate_planes=False,
    cosmic_rays_per_arcmin2=0.3,
    unit="nJy",
    bands={
        "u": Band((330.0, 400.0), 0.81, 24.85, 31.4, 27.03, 168.0, 15.6),
        "g": Band((402.0, 552.0), 0.77, 26.15, 31.4, 28.38, 240.0, 17.0),
        "r": Band((552.0, 691.0), 0.73, 26.25, 31.4, 28.15, 552.0, 16.8),
        "i": Band((691.0, 818.0), 0.71, 25.55, 31.4, 27.86, 552.0, 16.5),
        "z": Band((818.0, 922.0), 0.69, 24.85, 31.4, 27.46, 480.0, 16.1),
        "y": Band((949.0, 1060.0), 0.68, 23.65, 31.4, 26.68, 480.0, 15.2),
    },
)

# Depth of VIS: 25.6 at 10σ in apertures of 1.3″ (McCracken et al. 2025, arXiv:2503.15303), here
# as 5σ of a point source. Depth of NISP: Mellier et al. 2025 (A&A 697, A1), Euclid Wide Survey.
# Zero points: the MAGZERO of Q1's MER mosaics. NISP passbands: Schirmer et al. 2022 (A&A 662,
# A92). Its 0.3″ pixels are resampled to the 0.1″ of VIS in MER mosaics.
EUCLID_Q1 = Instrument(
    pixel_arcsec=0.1,
    moffat_beta=0.0,
    telescope=EUCLID,
    site=None,
    astrometry=1.0 / 3.0,
    distorted=False,
    separate_planes=True,
    cosmic_rays_per_arcmin2=0.5,
    unit="adu",
    bands={
        "VIS": Band((540.0, 920.0), 0.16, 27.7, 24.6, 25.5, 2264.0, 17.8),
        "Y": Band((949.6, 1212.3), 0.41, 24.3, 29.8, 25.0, 348.0, 15.6, native_pixels=3),
        "J": Band((1167.6, 1567.0), 0.44, 24.5, 30.0, 25.1, 348.0, 15.7, native_pixels=3),
        "H": Band((1521.5, 2021.4), 0.48, 24.4, 29.9, 25.1, 348.0, 15.7, native_pixels=3),
    },
)

INSTRUMENTS = {"rubin": RUBIN, "euclid_q1": EUCLID_Q1}


def instrument_of(name: str, survey: Survey) -> Instrument:
    """The instrument of a simulated survey.

    Raises UserError for an unknown instrument, a band that it lacks or another pixel size.
    """
    chosen = getattr(survey.archive, "instrument", None) or name
    if chosen not in INSTRUMENTS:
        raise UserError(
            f"surveys.{name}.archive.instrument: {chosen!r} can't be simulated; "
            f"use one of {', '.join(INSTRUMENTS)}"
        )
    instrument = INSTRUMENTS[chosen]
    for band in survey.bands:
        if band not in instrument.bands:
            raise UserError(
                f"surveys.{name}.bands: {chosen} has no band {band!r}; "
                f"it has {', '.join(instrument.bands)}"
            )
    if abs(survey.pixel_arcsec / instrument.pixel_arcsec - 1.0) > 1e-3:
        raise UserError(
            f"surveys.{name}.pixel_arcsec: tiles of {chosen} are simulated with "
            f"{instrument.pixel_arcsec:g}, not {survey.pixel_arcsec:g}"
        )
    return instrument
