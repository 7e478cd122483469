"""How a tile shows a point: its PSF, what its WCS is wrong by, and refraction.

Of a simulated tile all of it is known. Of a real one the PSF is the stored stamp, or a Moffat or
Gaussian of the given or measured width, and its WCS counts as right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.fft import fftfreq, irfft2, next_fast_len, rfftfreq
from scipy.ndimage import map_coordinates

from jaisp.archives import Tile
from jaisp.config import Config
from jaisp.config.geometry import Region
from jaisp.config.simulate import SimulateConfig
from jaisp.errors import TileError
from jaisp.inject.effective import STEPS, PointSpread
from jaisp.simulate.astrometry import refraction, tile_offset
from jaisp.simulate.frames import Frame, frames_of
from jaisp.simulate.instruments import Instrument, instrument_of
from jaisp.simulate.psf import TilePsf, tile_psf
from jaisp.simulate.spectra import star_colours
from jaisp.warp.tile import TileReader

PLACES_A_SIDE = 4  # of a tile, at which stars tell the PSF's width
PERIOD = 2.4  # reaches of a stamp, after which a PSF made from frequencies comes again
PIXEL_FWHM = np.sqrt(8.0 * np.log(2.0) / 12.0)  # of a Gaussian as wide as a pixel


@dataclass(frozen=True)
class TileOptics:
    """What stands between the sky and a tile.

    shift: takes temperatures (kelvin) of sources to where the tile shows them less where they are,
    arcsec (west, north): its offset and refraction.
    """

    psf: PointSpread
    shift: Callable[[Float[np.ndarray, " source"]], Float[np.ndarray, "source 2"]]


ONE_PLACE = np.zeros((1, 2))


@dataclass(frozen=True)
class SimulatedPsf:
    """The PSF of a simulated tile: one in each of its squares."""

    tile: TilePsf

    @property
    def pixel_arcsec(self) -> float:
        """Side of a native pixel."""
        return self.tile.pixel_arcsec

    @property
    def factor(self) -> int:
        """Tile pixels along a native pixel's side."""
        return self.tile.factor

    @cached_property
    def places(self) -> Float64[np.ndarray, "place 2"]:
        """The middles of the squares, which are nearest to all that lies in them."""
        rows, columns = self.tile.blocks
        row, column = np.divmod(np.arange(rows * columns), columns)
        middle = np.stack([column, row], axis=1) + 0.5
        return middle * self.tile.block - self.tile.margin - 0.5

    def fine(self, place: int, reach: int) -> Float64[np.ndarray, "fine fine"]:
        """From its transfer function, which ends below the steps' Nyquist frequency."""
        period = next_fast_len(int(PERIOD * reach), real=True)
        samples = period * STEPS
        down, across = fftfreq(samples, 1 / STEPS), rfftfreq(samples, 1 / STEPS)
        seen = self.tile.transfer(*divmod(place, self.tile.blocks[1]), down, across)
        image = irfft2(seen.astype(np.float64), s=(samples, samples)) * STEPS**2
        along = np.arange(-reach * STEPS, (reach + 1) * STEPS)
        return image[np.ix_(along, along)]

    def fwhm_arcsec(self, place: int) -> float:
        """Its width, a pixel's added in quadrature."""
        size, _, _ = self.tile.parameters(*divmod(place, self.tile.blocks[1]))
        wide = size * self.tile.optics.fwhm_arcsec
        return float(np.hypot(wide, PIXEL_FWHM * self.pixel_arcsec))


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


def tile_optics(config: Config, tile: Tile, reader: TileReader) -> TileOptics:
    """The optics of one tile. TileError where nothing tells its PSF."""
    if config.surveys[tile.survey].archive.kind == "simulated":
        return _simulated(config, tile)
    if reader.psf_stamp is not None:
        fwhm = reader.psf_fwhm_arcsec(0.0, 0.0)
        return TileOptics(StampPsf(reader.pixel_arcsec, reader.psf_stamp, fwhm), _nowhere)
    return TileOptics(_profile_of(reader), _nowhere)


def _nowhere(temperature: Float[np.ndarray, " source"]) -> Float64[np.ndarray, "source 2"]:
    return np.zeros((len(temperature), 2))


def _simulated(config: Config, tile: Tile) -> TileOptics:
    survey = config.surveys[tile.survey]
    instrument = instrument_of(tile.survey, survey)
    assert isinstance(config.sky, list)
    number = int(tile.id.split("-")[0])
    frames = _frames(config.simulate, tile.survey, instrument, number, config.sky[number])
    (frame,) = (frame for frame in frames if frame.id == tile.id)
    seen = config.simulate, tile.survey, instrument, tile.band, frame
    offset = np.array(tile_offset(config.simulate, tile.survey, frame))

    def shift(temperature: Float[np.ndarray, " source"]) -> Float64[np.ndarray, "source 2"]:
        return offset + np.stack(refraction(*seen, temperature), axis=1)

    return TileOptics(SimulatedPsf(tile_psf(*seen)), shift)


@lru_cache(maxsize=16)
def _frames(
    simulate: SimulateConfig, survey: str, instrument: Instrument, number: int, region: Region
) -> list[Frame]:
    """All bands of a survey share them."""
    return list(frames_of(simulate, survey, instrument, number, region))


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
