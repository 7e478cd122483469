"""Which tile shows an injected source, where on it, and through how much noise."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float32, Float64

from jaisp.archives import Tile
from jaisp.config import Config
from jaisp.errors import TileError
from jaisp.inject.effective import RIM, STEPS, EffectivePsf
from jaisp.inject.likelihood import Stamps
from jaisp.inject.optics import TileOptics, tile_optics
from jaisp.sky import Cell, plane_radec
from jaisp.store.layout import UNUSABLE, Flag
from jaisp.warp.pixel_map import sky_to_pixel
from jaisp.warp.reach import geometry
from jaisp.warp.sky_noise import background_noise
from jaisp.warp.tile import TileReader
from jaisp.warp.windows import Section

NJY_ZEROPOINT = 31.4  # AB magnitude of 1 nJy
DRAWN_ARCSEC = 5.0  # from a source, beyond which no light of it is drawn
FITTED_FWHM = 2.5  # from a source, within which pixels are fitted
SEAM_ARCSEC = 1.5  # around a source, within which one tile must be the deepest
CORE_FWHM = 0.5  # around a source, within which every pixel must be usable
STEP_ARCSEC = 1.0
LOOKUP_TABLES = ("cpdis1", "cpdis2", "det2im1", "det2im2")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Where a tile shows sources, if its WCS were right: tile pixels from 0, pixels per arcsec on
    the cell's plane, and arcsec to the tile's nearest edge (negative outside): of each source, and
    of the points around it."""

    pixel: Float64[np.ndarray, "source 2"]
    jacobian: Float64[np.ndarray, "source 2 2"]
    margin: Float64[np.ndarray, "point source"]


@dataclass(frozen=True)
class View:
    """One tile, and the sources as it shows them. psf: out to DRAWN_ARCSEC.

    native: x, y on native pixels, its offset and refraction included. owned: sources whose patch
    takes its pixels from this tile.
    """

    tile: Tile
    reader: TileReader
    optics: TileOptics
    psf: EffectivePsf
    native: Float64[np.ndarray, "source 2"]
    jacobian: Float64[np.ndarray, "source 2 2"]  # native pixels per arcsec
    shift: Float64[np.ndarray, "source 2"]
    margin: Float64[np.ndarray, " source"]
    owned: Bool[np.ndarray, " source"]
    noise_includes_sources: bool

    @property
    def unit(self) -> float:
        """What one unit of the tile is in nJy."""
        assert self.reader.zeropoint is not None
        return 10 ** (0.4 * (NJY_ZEROPOINT - self.reader.zeropoint))

    def to_native(self, plane: Float32[np.ndarray, "y x"]) -> Float32[np.ndarray, "ny nx"]:
        """Flux or noise on the detector's pixels; see `to_native`."""
        return to_native(plane, self.psf.psf.factor)


def views_of(
    config: Config, tiles: Sequence[Tile], cells: Mapping[str, Cell], sources: Table
) -> list[View]:
    """The tiles of one band that show any source.

    A tile that can't be read is left out, as `warp` does. TileError where nothing tells a tile's
    PSF, where a derived tile couldn't carry its WCS, and where no tile shows a source.
    """
    readers, places = [], []
    for tile in tiles:
        try:
            readers.append(TileReader(tile))
        except TileError as error:
            log.warning("%s %s %s is left out: %s", tile.survey, tile.band, tile.id, error)
            continue
        places.append(_places(readers[-1], cells, sources))
        if not (places[-1].margin[0] > -DRAWN_ARCSEC).any():
            readers.pop().close()
            places.pop()
        elif any(getattr(readers[-1].wcs, name) is not None for name in LOOKUP_TABLES):
            raise TileError(f"{tile.survey} {tile.band} {tile.id}: its WCS has lookup tables")
    if not readers:
        raise TileError(f"{tiles[0].survey} {tiles[0].band}: no tile shows a source")
    margins = np.stack([place.margin for place in places])  # tile, point, source
    deepest = np.argmax(margins, axis=0)
    views = []
    for number, (reader, place) in enumerate(zip(readers, places, strict=True)):
        # A source at the seam of two tiles has no one place.
        if config.warp.combine == "margin":
            alone = (deepest == number).all(axis=0)
        else:
            others = np.delete(margins, number, axis=0).max(axis=(0, 1), initial=-np.inf)
            alone = others < 0
        optics = tile_optics(config, reader.tile, reader)
        factor = optics.psf.factor
        shift = optics.shift(np.asarray(sources["temperature"]))
        native = (place.pixel + np.einsum("nij,nj->ni", place.jacobian, shift) + 0.5) / factor - 0.5
        half = int(np.ceil(DRAWN_ARCSEC / optics.psf.pixel_arcsec))
        views.append(
            View(
                reader.tile, reader, optics, EffectivePsf(optics.psf, half), native,
                place.jacobian / factor, shift, place.margin[0],
                (place.margin[0] > 0) & alone, reader.noise_includes_sources,
            )
        )  # fmt: skip
    return views


_known: dict[tuple, Places] = {}


def _places(reader: TileReader, cells: Mapping[str, Cell], sources: Table) -> Places:
    """All bands of a survey share their tiles' geometry: it is worked out once."""
    x, y = np.asarray(sources["x"], float), np.asarray(sources["y"], float)
    key = (geometry(reader), x.tobytes(), y.tobytes())
    if key not in _known:
        if len(_known) > 64:
            _known.clear()
        corner, along_x, along_y = (
            _pixels(reader, cells, sources, x + dx, y + dy)
            for dx, dy in ((0.0, 0.0), (STEP_ARCSEC, 0.0), (0.0, STEP_ARCSEC))
        )
        jacobian = np.stack([along_x - corner, along_y - corner], axis=-1) / STEP_ARCSEC
        rows, columns = reader.shape
        around = SEAM_ARCSEC * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
        points = corner + np.einsum("nij,pj->pni", jacobian, around)
        inside = np.minimum(points, np.array([columns, rows]) - 1 - points).min(axis=2) + 0.5
        margin = np.where(np.isfinite(inside), inside * reader.pixel_arcsec, -np.inf)
        _known[key] = Places(corner, jacobian, margin)
    return _known[key]


def _pixels(
    reader: TileReader, cells: Mapping[str, Cell], sources: Table, x: np.ndarray, y: np.ndarray
) -> Float64[np.ndarray, "source 2"]:
    ra, dec = np.empty(len(x)), np.empty(len(x))
    for name, cell in cells.items():
        own = np.asarray(sources["cell"]) == name
        ra[own], dec[own] = plane_radec(cell, x[own], y[own])
    return np.stack(sky_to_pixel(reader.wcs, ra, dec), axis=1)


def native_sigma(view: View) -> Float32[np.ndarray, "y x"]:
    """1σ of a tile's background on native pixels, nJy; NaN where a pixel can't be used."""
    part = view.reader.section(*(slice(0, length) for length in view.reader.shape))
    sigma = background_sigma(view, part)
    sigma[(part.flags & np.uint8(UNUSABLE | Flag.SATURATED)) != 0] = np.nan
    return view.to_native(sigma * np.float32(view.unit))


def native_flux(view: View) -> Float32[np.ndarray, "y x"]:
    """A tile's own flux, its sky subtracted if its survey asks for that."""
    part = view.reader.section(*(slice(0, length) for length in view.reader.shape))
    return view.to_native(part.flux * np.float32(view.unit))


def background_sigma(view: View, part: Section) -> Float32[np.ndarray, "y x"]:
    """A tile's noise without that of its sources, as `warp` takes it."""
    if view.noise_includes_sources:
        return background_noise(part.flux, part.noise, view.reader.pixel_arcsec)
    return part.noise


def to_native(
    plane: Float32[np.ndarray, "y x"], factor: int
) -> Float32[np.ndarray, "native_y native_x"]:
    """Flux or noise on the detector's pixels, of a plane served on pixels `factor` times smaller.

    The middle one of each native pixel's pixels holds its own value: there the interpolation's
    other weights vanish.
    """
    if factor == 1:
        return plane
    return plane[factor // 2 :: factor, factor // 2 :: factor] * np.float32(factor**2)


def stamps_of(survey: str, band: str, views: Sequence[View]) -> Stamps:
    """Every source as one band sees it, in the noise of its tiles; no data yet."""
    count = len(views[0].margin)
    size = 2 * max(_stamp_half(view) for view in views) + 1
    side = size + 2 * RIM
    stamps = Stamps(
        survey=survey,
        band=band,
        coefficients=np.zeros((0, STEPS, STEPS, side, side), np.float32),
        place=np.full(count, -1),
        data=np.zeros((count, size, size), np.float32),
        weight=np.zeros((count, size, size), np.float32),
        position=np.full((count, 2), np.nan),
        jacobian=np.full((count, 2, 2), np.nan),
        shift=np.zeros((count, 2)),
        fwhm_arcsec=np.full(count, np.nan),
    )
    for view in views:
        _weigh(stamps, view)
    return stamps


def add_data(stamps: Stamps, view: View, flux: Float32[np.ndarray, "y x"]) -> None:
    """Fill in the pixels (native, nJy) of the sources that a view owns."""
    rows = np.flatnonzero(stamps.seen & view.owned)
    half = stamps.data.shape[1] // 2
    cut = _cut(flux, view.native[rows], half)
    stamps.data[rows] = np.where(stamps.weight[rows] > 0, cut, np.float32(0))


def _weigh(stamps: Stamps, view: View) -> None:
    """Fill in what a view tells of the sources that it owns, but for their pixels."""
    half = stamps.weight.shape[1] // 2
    rows = np.flatnonzero(view.owned)
    if not len(rows):
        return
    with np.errstate(divide="ignore"):
        weight = np.nan_to_num(native_sigma(view) ** -2.0, nan=0.0, posinf=0.0)
    native = view.native[rows]
    cut = _cut(weight, native, half)
    position = native - np.rint(native) + half
    places = view.psf.place_of(*native.T)
    widths = {int(place): view.psf.psf.fwhm_arcsec(int(place)) for place in np.unique(places)}
    fwhm = np.array([widths[place] for place in places.tolist()])
    # Within the core every pixel must be there.
    away = np.arange(2 * half + 1) - position[:, :, None]
    core = np.maximum(CORE_FWHM * fwhm / view.psf.psf.pixel_arcsec, 1.0)
    near = np.hypot(away[:, 1, :, None], away[:, 0, None, :]) < core[:, None, None]
    usable = ~(near & (cut == 0)).any(axis=(1, 2))
    rows, position, places, cut = rows[usable], position[usable], places[usable], cut[usable]
    used, number = np.unique(places, return_inverse=True)
    rim = view.psf.half - half
    inner = slice(rim, -rim) if rim else slice(None)
    first = len(stamps.coefficients)
    crops = [view.psf.coefficients(int(place))[:, :, inner, inner] for place in used]
    stamps.coefficients = np.concatenate([stamps.coefficients, *(c[None] for c in crops)])
    stamps.place[rows] = first + number
    stamps.weight[rows], stamps.position[rows] = cut, position
    stamps.jacobian[rows], stamps.shift[rows] = view.jacobian[rows], view.shift[rows]
    stamps.fwhm_arcsec[rows] = fwhm[usable]


def _stamp_half(view: View) -> int:
    psf = view.psf.psf
    widest = max(psf.fwhm_arcsec(place) for place in range(len(psf.places)))
    return min(int(np.ceil(FITTED_FWHM * widest / psf.pixel_arcsec)), view.psf.half)


def _cut(
    plane: Float32[np.ndarray, "y x"], place: Float64[np.ndarray, "row 2"], half: int
) -> Float32[np.ndarray, "row size size"]:
    """Squares around places, 0 beyond the plane."""
    padded = np.pad(plane, half)
    column, row = np.rint(place).astype(int).T
    along = np.arange(2 * half + 1)
    return padded[row[:, None, None] + along[:, None], column[:, None, None] + along]
