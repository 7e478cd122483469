"""The instruments that can be simulated: optics, passbands, depth.

FWHM, zero points, exposure times and sky brightness are those that surveycodex collects, whose
files name a source for each (Boucaud et al., github.com/LSSTDESC/surveycodex, 1.3.0). Depths are
published ones where the tables below name them; else the sky's noise gives them.
"""

from dataclasses import dataclass, replace

from surveycodex import get_survey

from jaisp.config.survey import Survey
from jaisp.errors import UserError
from jaisp.simulate.transfer import Telescope


@dataclass(frozen=True)
class Band:
    """One filter of one instrument.

    `wavelength` is the band's edges in nm, a top hat unless GalSim has its `curve`. `fwhm_arcsec`
    is the PSF's without the pixel. `depth` is the 5σ AB magnitude of a point source; None: that of
    the photons of the `sky` (AB per arcsec²). `electron_zeropoint` is the AB magnitude of one
    electron per second, `exposure` the seconds that the depth stands for. `saturation` is the AB
    magnitude of a star whose central pixel just fills up, `zeropoint` that of a tile's unit.
    """

    wavelength: tuple[float, float]
    fwhm_arcsec: float
    depth: float | None
    zeropoint: float
    electron_zeropoint: float
    exposure: float
    saturation: float
    sky: float
    native_pixels: int = 1  # side of a detector pixel in pixels of the tile
    curve: str | None = None  # file of GalSim's bandpasses


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


def _band(
    codex: str,
    name: str,
    wavelength: tuple[float, float],
    saturation: float,
    depth: float | None = None,
    zeropoint: float = 31.4,
    exposures: float = 1.0,
    **more: object,
) -> Band:
    """A filter as surveycodex has it, exposed `exposures` times as long."""
    known = get_survey(codex).get_filter(name)
    band = Band(
        wavelength=wavelength,
        fwhm_arcsec=float(known.psf_fwhm.to_value("arcsec")),
        depth=depth,
        zeropoint=zeropoint,
        electron_zeropoint=float(known.zeropoint.value),
        exposure=exposures * float(known.full_exposure_time.to_value("s")),
        saturation=saturation,
        sky=float(known.sky_brightness.value),
    )
    return replace(band, **more)  # type: ignore[arg-type]


def _nisp(name: str, wavelength: tuple[float, float], **more: float) -> Band:
    """A band of NISP: four dithers; its FWHM was measured on stacks, with the pixel of 0.3″."""
    band = _band("Euclid_NISP", name, wavelength, exposures=4.0, native_pixels=3, **more)
    # A square pixel's variance is that of a Gaussian of 0.68 of its side in FWHM.
    return replace(band, fwhm_arcsec=(band.fwhm_arcsec**2 - 0.204**2) ** 0.5)


# Air of the three mountains: mean pressure, temperature and humidity at night.
PACHON = Site(pressure=561.0, temperature=11.5, water_pressure=5.0)  # 2650 m
TOLOLO = Site(pressure=585.0, temperature=11.5, water_pressure=5.0)  # 2200 m
MAUNA_KEA = Site(pressure=461.0, temperature=2.0, water_pressure=2.0)  # 4140 m

# Obscurations are linear: 1 − (area / full area) of surveycodex, square-rooted.
EUCLID = Telescope(diameter=1.2, obscuration=0.36, struts=3, strut_width=0.012)
ROMAN_TELESCOPE = Telescope(diameter=2.4, obscuration=0.31, struts=6, strut_width=0.04)

# Depth: coadded 5σ of Ivezić et al. 2019 (ApJ 873, 111; table 1) after a tenth of the survey.
# Saturation of 15 s exposures likewise. Curves: GalSim's, of the LSST project, at airmass 1.2.
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
        name: _band("LSST", name, edges, full, depth, exposures=0.1, curve=f"LSST_{name}.dat")
        for name, edges, full, depth in (
            ("u", (305.3, 408.6), 15.6, 24.85),
            ("g", (386.3, 567.0), 17.0, 26.15),
            ("r", (536.9, 706.0), 16.8, 26.25),
            ("i", (675.9, 833.0), 16.5, 25.55),
            ("z", (802.9, 938.6), 16.1, 24.85),
            ("y", (908.3, 1099.6), 15.2, 23.65),
        )
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
        "VIS": _band("Euclid_VIS", "IE", (540.0, 920.0), 17.8, 27.7, 24.6, exposures=4.0),
        "Y": _nisp("YE", (949.6, 1212.3), saturation=15.6, depth=24.3, zeropoint=29.8),
        "J": _nisp("JE", (1167.6, 1567.0), saturation=15.7, depth=24.5, zeropoint=30.0),
        "H": _nisp("HE", (1521.5, 2021.4), saturation=15.7, depth=24.4, zeropoint=29.9),
    },
)

# HSC-SSP Wide. Depth: of the sky. Edges: Kawanomoto et al. 2018 (PASJ 70, 66), rounded. Saturation:
# a full well of 1.5e5 electrons in single exposures of 150 s (g, r) and 200 s. Coadds have zero
# point 27.
HSC = Instrument(
    pixel_arcsec=0.168,
    moffat_beta=3.0,
    telescope=None,
    site=MAUNA_KEA,
    astrometry=1.0,
    distorted=True,
    separate_planes=False,
    cosmic_rays_per_arcmin2=0.3,
    unit="adu",
    bands={
        name: _band("HSC", name, edges, full, zeropoint=27.0)
        for name, edges, full in (
            ("g", (400.0, 545.0), 17.6),
            ("r", (545.0, 700.0), 17.6),
            ("i", (700.0, 850.0), 18.2),
            ("z", (850.0, 930.0), 17.0),
            ("y", (935.0, 1050.0), 16.7),
        )
    },
)

# DES DR2. Depth: 10σ in apertures of 1.95″ (Abbott et al. 2021, ApJS 255, 20), here as 5σ of a
# point source. Edges: those of DECam's filters, rounded. Saturation: a full well of 1.3e5 electrons
# in exposures of 90 s (Y: 45 s). Coadds have zero point 30.
DES = Instrument(
    pixel_arcsec=0.263,
    moffat_beta=3.0,
    telescope=None,
    site=TOLOLO,
    astrometry=1.0,
    distorted=True,
    separate_planes=False,
    cosmic_rays_per_arcmin2=0.3,
    unit="adu",
    bands={
        name: _band("DES", name, edges, full, depth, 30.0)
        for name, edges, full, depth in (
            ("g", (400.0, 550.0), 15.2, 25.2),
            ("r", (560.0, 710.0), 15.8, 25.1),
            ("i", (700.0, 850.0), 15.9, 24.5),
            ("z", (850.0, 1000.0), 15.7, 23.9),
            ("Y", (950.0, 1065.0), 13.8, 22.4),
        )
    },
)

# Roman's HLWAS, medium tier, single exposures of 107 s. Depth: of the sky. Edges: those of the
# filters by STScI (roman-docs.stsci.edu). Its mosaics stay on detector pixels here.
ROMAN = Instrument(
    pixel_arcsec=0.11,
    moffat_beta=0.0,
    telescope=ROMAN_TELESCOPE,
    site=None,
    astrometry=1.0 / 3.0,
    distorted=False,
    separate_planes=False,
    cosmic_rays_per_arcmin2=0.5,
    unit="nJy",
    bands={
        name: _band("Roman_WFI", name, edges, 17.6)
        for name, edges in (
            ("F106", (927.0, 1192.0)),
            ("F129", (1131.0, 1454.0)),
            ("F158", (1380.0, 1774.0)),
        )
    },
)

INSTRUMENTS = {"rubin": RUBIN, "euclid_q1": EUCLID_Q1, "hsc": HSC, "des": DES, "roman": ROMAN}


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
