"""How a tile shows a point: its PSF, what its WCS is wrong by, and refraction.

Of a simulated tile all of it is known. Of a real one the PSF is the stored stamp, or a Moffat or
Gaussian of the given or measured width, and its WCS counts as right.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.ndimage import map_coordinates

from jaisp.archives import Tile
from jaisp.config import Config
from jaisp.errors import TileError
from jaisp.inject.effective import STEPS, PointSpread, fine_of_stamps
from jaisp.simulate.detector import Camera, camera_of
from jaisp.simulate.instruments import instrument_of
from jaisp.simulate.profiles import POINT
from jaisp.simulate.render import render
from jaisp.simulate.spectra import star_colours
from jaisp.warp.tile import TileReader

PLACES_A_SIDE = 4  # of a tile, at which stars tell the PSF's width


@dataclass(frozen=True)
class Optics:
    """What stands between the sky and a tile.

    offset: arcsec (west, north), where the tile's WCS puts a source less where it is.
    """

    psf: PointSpread
    offset: tuple[float, float]

    def shift(self, temperature: Float[np.ndarray, " source"]) -> Float[np.ndarray, "source 2"]:
        """Where the tile shows sources of some temperatures less where they are: offset and
        refraction, arcsec (west, north)."""
        return np.broadcast_to(np.array(self.offset), (len(temperature), 2))


ONE_PLACE = np.zeros((1, 2))


@dataclass(frozen=True)
class CameraPsf:
    """The PSF of a simulated camera, the same all over a tile."""

    camera: Camera
    factor: int
    fwhm: float

    @property
    def pixel_arcsec(self) -> float:
        """A native pixel."""
        return self.camera.pixel_arcsec

    @property
    def places(self) -> Float64[np.ndarray, "place 2"]:
        """One for all."""
        return ONE_PLACE

    def fine(self, place: int, reach: int) -> Float64[np.ndarray, "fine fine"]:
        """Integrated over pixels."""
        return fine_of_stamps(self._stamp, reach)

    def fwhm_arcsec(self, place: int) -> float:
        """Its width, before pixels."""
        return self.fwhm

    def _stamp(self, x: float, y: float, half: int) -> np.ndarray:
        image = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
        one, kind = np.ones(1), np.zeros(1, int)
        at = np.array([[x + half, y + half]])
        render(image, at, one, np.zeros((1, 3)), kind, [POINT], self.camera.psf, 0.0)
        return image


@dataclass(frozen=True)
class StampPsf:
    """A PSF known by a stamp on the tile's own pixels, which holds the pixel's integral."""

    pixel_arcsec: float
    image: Float32[np.ndarray, "y x"]
    fwhm: float
    factor: int = 1
    places: Float64[np.ndarray, "place 2"] = field(default_factory=ONE_PLACE.copy)

    def fine(self, place: int, reach: int) -> Float64[np.ndarray, "fine fine"]:
        """The stamp between its pixels by a cubic spline; nothing beyond its edge."""
        along = np.arange((2 * reach + 1) * STEPS) / STEPS - reach + (len(self.image) - 1) / 2
        grid = np.meshgrid(along, along, indexing="ij")
        return map_coordinates(self.image.astype(float), grid, order=3, mode="constant")

    def fwhm_arcsec(self, place: int) -> float:
        """Its width, pixel included."""
        return self.fwhm


@dataclass(frozen=True)
class ProfilePsf:
    """A round PSF known by its width in arcsec, pixel included: its values at pixels' centres."""

    pixel_arcsec: float
    widths: Float[np.ndarray, " place"]
    beta: float | None
    places: Float64[np.ndarray, "place 2"]
    factor: int = 1

    def fine(self, place: int, reach: int) -> Float64[np.ndarray, "fine fine"]:
        """A Moffat profile where its β is given, else a Gaussian."""
        along = np.arange((2 * reach + 1) * STEPS) / STEPS - reach
        r2 = (along[:, None] ** 2 + along**2) * self.pixel_arcsec**2
        half2 = (self.widths[place] / 2.0) ** 2
        if self.beta is None:
            profile = np.exp(-np.log(2.0) * r2 / half2) * np.log(2.0) / (np.pi * half2)
        else:
            scale2 = half2 / (2.0 ** (1.0 / self.beta) - 1.0)
            profile = (1.0 + r2 / scale2) ** -self.beta * (self.beta - 1.0) / (np.pi * scale2)
        return profile * self.pixel_arcsec**2

    def fwhm_arcsec(self, place: int) -> float:
        """Given, or measured from the tile's stars."""
        return float(self.widths[place])


def _profile_of(reader: TileReader) -> ProfilePsf:
    """By the width given, or the stars' at a few places of the tile."""
    rows, columns = reader.shape
    along = (np.arange(PLACES_A_SIDE) + 0.5) / PLACES_A_SIDE
    places = np.stack(np.meshgrid(along * columns, along * rows), axis=-1).reshape(-1, 2)
    if reader.tile.psf_fwhm_arcsec is not None:
        places = ONE_PLACE
    widths = np.array([reader.psf_fwhm_arcsec(*place) for place in places])
    if not np.isfinite(widths).all():
        raise TileError("no stamp, no width and no star tells its PSF")
    return ProfilePsf(reader.pixel_arcsec, widths, reader.tile.psf_moffat_beta, places)


def optics_of(config: Config, tile: Tile, reader: TileReader) -> Optics:
    """The optics of one tile. TileError where nothing tells its PSF."""
    survey = config.surveys[tile.survey]
    if survey.archive.kind == "simulated":
        instrument = instrument_of(tile.survey, survey)
        band = instrument.bands[tile.band]
        camera = camera_of(instrument, band, config.simulate.exposure)
        return Optics(CameraPsf(camera, band.native_pixels, band.fwhm_arcsec), (0.0, 0.0))
    if reader.psf_stamp is not None:
        fwhm = reader.psf_fwhm_arcsec(0.0, 0.0)
        return Optics(StampPsf(reader.pixel_arcsec, reader.psf_stamp, fwhm), (0.0, 0.0))
    return Optics(_profile_of(reader), (0.0, 0.0))


def colours(
    config: Config, survey: str, temperature: Float[np.ndarray, " source"]
) -> Float[np.ndarray, "source band"]:
    """Flux in each of a survey's bands over that in i: a black body's where the survey is
    simulated, else the same AB magnitude in all bands."""
    content = config.surveys[survey]
    if content.archive.kind != "simulated":
        return np.ones((len(temperature), len(content.bands)))
    bands = instrument_of(survey, content).bands
    return star_colours([bands[name] for name in content.bands], temperature)


def draw_temperatures(count: int, rng: np.random.Generator) -> Float[np.ndarray, " source"]:
    """Kelvin: half of the stars are M dwarfs, as on the simulated sky."""
    cool = rng.uniform(size=count) < 0.5
    return np.where(cool, rng.uniform(2900, 3900, count), rng.uniform(3900, 7000, count))
