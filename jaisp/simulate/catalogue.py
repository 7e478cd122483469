"""The sources of a simulated sky: where they are, what they look like, how bright they are."""

from dataclasses import dataclass, fields

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from jaxtyping import Float, Shaped
from scipy.spatial import cKDTree

from jaisp.config.simulate import SimulateConfig
from jaisp.simulate.instruments import Band
from jaisp.simulate.profiles import BULGE, DISC, half_light_radius, sersic
from jaisp.simulate.spectra import galaxy_colours, galaxy_wavelengths, star_colours, star_wavelength

COUNTS_AT_25, COUNTS_SLOPE = 46.0, 0.31  # galaxies per arcmin² with i < 25, LSST Science Book 3.7.2
BRIGHTEST_GALAXY = 16.5  # AB, i
BRIGHTEST_STAR, FAINTEST_STAR, STAR_COUNTS_SLOPE = 15.0, 25.5, 0.1
GROUP_SHARE, GROUP_ARCSEC = 0.25, 9.0
PAIR_SHARE, PAIR_ARCSEC = 0.08, (0.4, 1.8)
BLEND_ARCSEC, PARTNER_ARCSEC = 1.5, 3.0


@dataclass(frozen=True)
class Catalogue:
    """Sources by row. Radii in arcsec, 0 for stars; fluxes in nJy.

    `e1`, `e2`: (a - b) / (a + b) times cosine and sine of twice the position angle of the major
    axis, east of north.
    """

    ra: Float[np.ndarray, " source"]
    dec: Float[np.ndarray, " source"]
    type: Shaped[np.ndarray, " source"]  # star, elliptical, spiral, irregular
    redshift: Float[np.ndarray, " source"]
    bulge_radius: Float[np.ndarray, " source"]
    disc_radius: Float[np.ndarray, " source"]
    bulge_fraction: Float[np.ndarray, " source"]  # in i
    e1: Float[np.ndarray, " source"]
    e2: Float[np.ndarray, " source"]
    template: Float[np.ndarray, " source"]  # of the disc, 0 (E) to 3 (Im); NaN for stars
    temperature: Float[np.ndarray, " source"]  # kelvin; NaN for galaxies
    bulge_flux: Float[np.ndarray, "source band"]
    disc_flux: Float[np.ndarray, "source band"]  # of a star: all of it
    wavelength: Float[np.ndarray, "source band"]  # of its photons in the band: the mean, nm

    def __len__(self) -> int:
        return len(self.ra)

    def __getitem__(self, rows: np.ndarray) -> "Catalogue":
        return Catalogue(*(getattr(self, field.name)[rows] for field in fields(self)))


def join(parts: list[Catalogue]) -> Catalogue:
    """One catalogue after another."""
    names = [field.name for field in fields(Catalogue)]
    return Catalogue(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def draw_catalogue(
    simulate: SimulateConfig,
    bands: list[Band],
    centre: SkyCoord,
    size_arcsec: tuple[float, float],
    rng: np.random.Generator,
) -> Catalogue:
    """Sources in a rectangle, width by height on the tangent plane at `centre`."""
    area = size_arcsec[0] * size_arcsec[1] / 3600.0
    galaxies = rng.poisson(simulate.sources * simulate.galaxies_per_arcmin2 * area)
    stars = rng.poisson(simulate.sources * simulate.stars_per_arcmin2 * area)
    place = rng.uniform(-0.5, 0.5, (galaxies + stars, 2)) * size_arcsec
    magnitude = _galaxy_magnitudes(simulate.galaxies_per_arcmin2, galaxies, rng)
    # Redshifts at a magnitude: LSST Science Book, equation 3.8.
    redshift = rng.gamma(3.0, np.maximum(0.0417 * magnitude - 0.744, 0.02)).clip(0.01, 5.5)
    _gather(place[:galaxies], redshift, rng)
    position = from_plane(centre, *place.T)
    return join(
        [
            _galaxies(position[:galaxies], magnitude, redshift, bands, rng),
            _stars(position[galaxies:], bands, rng),
        ]
    )


def from_plane(centre: SkyCoord, east: np.ndarray, north: np.ndarray) -> SkyCoord:
    """Positions of points (arcsec) on the tangent plane at `centre`."""
    # Gnomonic: the distance on the plane is the tangent of the angle from the tangent point.
    angle = np.arctan(np.radians(np.hypot(east, north) / 3600.0))
    return centre.directional_offset_by(np.arctan2(east, north) * u.rad, angle * u.rad)


def truth_table(catalogue: Catalogue, columns: list[str], bent: list[str] | None = None) -> Table:
    """What the sky holds, a row a source.

    `columns` name the fluxes of the catalogue's bands; those of them in `bent` get their effective
    wavelengths too, from which refraction follows.
    """
    flux = catalogue.bulge_flux + catalogue.disc_flux
    table = Table()
    table["id"] = np.arange(len(catalogue))
    for name in ("ra", "dec", "type", "redshift", "bulge_fraction", "e1", "e2"):
        table[name] = getattr(catalogue, name)
    table["template"], table["temperature"] = catalogue.template, catalogue.temperature
    table["half_light_radius_arcsec"] = _half_light_radius(catalogue)
    table["neighbours"] = _neighbours(catalogue)
    table["partner"], table["partner_separation_arcsec"] = _partners(catalogue)
    for number, name in enumerate(columns):
        table[f"flux_{name}"] = flux[:, number]
        table[f"flux_{name}"].unit = "nJy"
        if name in (bent or []):
            table[f"wavelength_{name}"] = catalogue.wavelength[:, number]
            table[f"wavelength_{name}"].unit = "nm"
            table[f"wavelength_{name}"].description = "mean of the source's photons"
    for name, unit, description in TRUTH:
        table[name].unit, table[name].description = unit, description
    return table


TRUTH = (
    ("ra", "deg", "ICRS"),
    ("dec", "deg", "ICRS"),
    ("bulge_fraction", None, "in i"),
    ("e1", None, "(a - b) / (a + b) cos(2 position angle), east of north"),
    ("e2", None, "(a - b) / (a + b) sin(2 position angle), east of north"),
    ("template", None, "spectrum of the disc: 0 E, 1 Sbc, 2 Scd, 3 Im; NaN for stars"),
    ("temperature", "K", "black body of a star; NaN for galaxies"),
    ("half_light_radius_arcsec", "arcsec", "in i, before any PSF, of axes √(a b)"),
    ("neighbours", None, f"other sources within {BLEND_ARCSEC} arcsec"),
    ("partner", None, f"id of the nearest other source within {PARTNER_ARCSEC} arcsec, or -1"),
    ("partner_separation_arcsec", "arcsec", "NaN without a partner"),
)


def _galaxy_magnitudes(density: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """AB in i: counts 46 · 10^(0.31 (i - 25)) per arcmin², to the depth that gives `density`."""
    brightest = COUNTS_AT_25 * 10 ** (COUNTS_SLOPE * (BRIGHTEST_GALAXY - 25.0))
    below = rng.uniform(brightest, max(density, 2.0 * brightest), count)
    return 25.0 + np.log10(below / COUNTS_AT_25) / COUNTS_SLOPE


def _gather(place: np.ndarray, redshift: np.ndarray, rng: np.random.Generator) -> None:
    """Move some galaxies, in place, into groups around others, and some beside a neighbour."""
    count = len(redshift)
    if count < 2:
        return
    draw = rng.uniform(size=count)
    host = rng.integers(0, max(1, count // 25), count)  # few hosts, so that groups have members
    member = (draw < GROUP_SHARE) & (np.arange(count) >= max(1, count // 25))
    place[member] = place[host[member]] + rng.normal(0.0, GROUP_ARCSEC, (member.sum(), 2))
    # A galaxy too bright for the group's redshift is in front of it.
    member &= redshift[host] < 1.3 * redshift
    redshift[member] = redshift[host[member]]
    # The partner of a blend is any galaxy, mostly at another redshift.
    partner = np.flatnonzero(draw > 1.0 - PAIR_SHARE)
    others = np.flatnonzero(draw < 1.0 - PAIR_SHARE)
    if len(others) == 0:
        return
    beside = rng.choice(others, len(partner))
    angle = rng.uniform(0.0, 2.0 * np.pi, len(partner))
    distance = rng.uniform(*PAIR_ARCSEC, len(partner))
    place[partner, 0] = place[beside, 0] + distance * np.cos(angle)
    place[partner, 1] = place[beside, 1] + distance * np.sin(angle)


def _galaxies(
    position: SkyCoord,
    magnitude: np.ndarray,
    redshift: np.ndarray,
    bands: list[Band],
    rng: np.random.Generator,
) -> Catalogue:
    count = len(magnitude)
    draw = rng.uniform(size=count)
    elliptical = draw < np.where(magnitude < 22.0, 0.35, 0.12)
    irregular = draw > np.where(magnitude < 22.0, 0.9, 0.6)
    types = np.where(elliptical, "elliptical", np.where(irregular, "irregular", "spiral"))
    bulge_fraction = np.where(elliptical, rng.uniform(0.75, 1.0, count), rng.beta(1.5, 4.0, count))
    bulge_fraction[irregular] = 0.0
    # Sizes fall by a factor 1.3 a magnitude, with a scatter of 0.2 dex, as in deep HST fields.
    radius = 10 ** (np.log10(0.27) - 0.115 * (magnitude - 25.0) + rng.normal(0.0, 0.2, count))
    radius = radius.clip(0.05, 6.0)
    ellipticity = rng.rayleigh(0.22, count).clip(0.0, 0.65)
    angle = rng.uniform(0.0, np.pi, count)
    # Old stars are younger, and bluer, at high redshift.
    bulge_template = (rng.uniform(0.0, 0.4, count) + 0.35 * redshift).clip(0.0, 2.0)
    disc_template = np.where(irregular, rng.uniform(2.2, 3.0, count), rng.uniform(0.7, 2.4, count))
    disc_template[elliptical] = bulge_template[elliptical]
    reddening = np.where(elliptical, 0.0, rng.exponential(0.1, count)).clip(0.0, 0.6)
    bulge_colour = galaxy_colours(bands, bulge_template, redshift, 0.5 * reddening)
    disc_colour = galaxy_colours(bands, disc_template, redshift, reddening)
    flux = 10 ** (0.4 * (31.4 - magnitude))
    bulge_flux = (flux * bulge_fraction)[:, None] * bulge_colour
    disc_flux = (flux * (1.0 - bulge_fraction))[:, None] * disc_colour
    share = bulge_flux / np.maximum(bulge_flux + disc_flux, 1e-30)
    wavelength = share * galaxy_wavelengths(bands, bulge_template, redshift)
    wavelength += (1.0 - share) * galaxy_wavelengths(bands, disc_template, redshift)
    return Catalogue(
        ra=position.ra.deg,
        dec=position.dec.deg,
        type=types,
        redshift=redshift,
        bulge_radius=radius * np.where(elliptical, 1.0, 0.35),
        disc_radius=radius * np.where(elliptical, 1.5, 1.1),
        bulge_fraction=bulge_fraction,
        e1=ellipticity * np.cos(2.0 * angle),
        e2=ellipticity * np.sin(2.0 * angle),
        template=disc_template,
        temperature=np.full(count, np.nan),
        bulge_flux=bulge_flux,
        disc_flux=disc_flux,
        wavelength=wavelength,
    )


def _stars(position: SkyCoord, bands: list[Band], rng: np.random.Generator) -> Catalogue:
    count = len(position)
    bright, faint = (10 ** (STAR_COUNTS_SLOPE * m) for m in (BRIGHTEST_STAR, FAINTEST_STAR))
    magnitude = np.log10(rng.uniform(bright, faint, count)) / STAR_COUNTS_SLOPE
    cool = rng.uniform(size=count) < 0.5  # half are M dwarfs
    temperature = np.where(cool, rng.uniform(2900, 3900, count), rng.uniform(3900, 7000, count))
    flux = 10 ** (0.4 * (31.4 - magnitude))
    zero = np.zeros(count)
    return Catalogue(
        ra=position.ra.deg,
        dec=position.dec.deg,
        type=np.full(count, "star"),
        redshift=zero,
        bulge_radius=zero,
        disc_radius=zero,
        bulge_fraction=zero,
        e1=zero,
        e2=zero,
        template=np.full(count, np.nan),
        temperature=temperature,
        bulge_flux=np.zeros((count, len(bands))),
        disc_flux=flux[:, None] * star_colours(bands, temperature),
        wavelength=np.stack([star_wavelength(band, temperature) for band in bands], axis=1),
    )


def _half_light_radius(catalogue: Catalogue) -> np.ndarray:
    bulge, disc, share = sersic(BULGE), sersic(DISC), catalogue.bulge_fraction[:, None]
    weight = np.hstack([share * bulge.weight, (1.0 - share) * disc.weight])
    variance = np.hstack(
        [
            catalogue.bulge_radius[:, None] ** 2 * bulge.variance,
            catalogue.disc_radius[:, None] ** 2 * disc.variance,
        ]
    )
    radius = np.zeros(len(catalogue))
    extended = catalogue.disc_radius > 0
    radius[extended] = half_light_radius(weight[extended], variance[extended])
    return radius


def _neighbours(catalogue: Catalogue) -> np.ndarray:
    """How many other sources are within BLEND_ARCSEC of each."""
    if len(catalogue) == 0:
        return np.zeros(0, int)
    sphere = _sphere(catalogue)
    return cKDTree(sphere).query_ball_point(sphere, _chord(BLEND_ARCSEC), return_length=True) - 1


def _partners(catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other source within PARTNER_ARCSEC of each, and its distance in arcsec."""
    partner, separation = np.full(len(catalogue), -1), np.full(len(catalogue), np.nan)
    if len(catalogue) < 2:
        return partner, separation
    sphere = _sphere(catalogue)
    chord, nearest = cKDTree(sphere).query(sphere, k=[2])
    near = chord[:, 0] < _chord(PARTNER_ARCSEC)
    partner[near] = nearest[near, 0]
    separation[near] = 3600.0 * np.degrees(2.0 * np.arcsin(chord[near, 0] / 2.0))
    return partner, separation


def _sphere(catalogue: Catalogue) -> np.ndarray:
    """Points of the unit sphere."""
    return SkyCoord(catalogue.ra, catalogue.dec, unit="deg").cartesian.xyz.value.T


def _chord(arcsec: float) -> float:
    """Length between two points of the unit sphere."""
    return float(2.0 * np.sin(np.radians(arcsec / 3600.0) / 2.0))
