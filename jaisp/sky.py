"""Pieces of sky: cells with one tangent plane each, the patches on them, and the split.

On a cell's plane, x grows with pixel columns (towards the west) and y with rows (towards the
north), both in arcsec from the tangent point (gnomonic projection: Calabretta & Greisen 2002,
A&A 395, 1077, section 5.1.3).
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy_healpix import HEALPix
from jaxtyping import Bool, Float, UInt8

from jaisp.config import Config
from jaisp.config.geometry import Moc, Region
from jaisp.errors import UserError

ARCSEC = np.pi / 180 / 3600
ONE_CELL_ARCMIN = 25.0
HEALPIX_ORDER = 7
SEPARATION_ARCSEC = 3.0
MANY_CELLS = 20
LOOKED_UP = 64  # cells of which it is asked at once which of their patches the sky holds
OUTLINE_POINTS = 9  # along each side of an image
MOST_DISTANT = np.radians(80.0)  # from a rectangle's centre, of pixels that it surely holds
NONE, TRAIN, VALIDATION, TEST = 0, 1, 2, 3
SPLITS = {"none": NONE, "train": TRAIN, "validation": VALIDATION, "test": TEST}


class Cell:
    """A piece of sky with one tangent plane, and the patches that it holds.

    Parameters
    ----------
    name: `field`, `field0`… for several regions, or `o7p0001234` (HEALPix order 7, nested).
    ra, dec: tangent point, degrees.
    patch_arcsec: side of a patch.
    centres: patch centres on the plane, arcsec (x, y); or what works them out when they are first
        asked for, which planning a wide sky does only where the sky ends.
    whole: whether these are all patches of a HEALPix pixel: its name then tells them.
    moves: where each patch shows its sky, away from where it should, for tests of registration
        alone: arcsec (x, y) and a turn about its centre (radians, from +x to +y).
    """

    def __init__(
        self,
        name: str,
        ra: float,
        dec: float,
        patch_arcsec: float,
        centres: Float[np.ndarray, "patch 2"] | Callable[[], "Centres"],
        whole: bool = False,
        moves: Float[np.ndarray, "patch 3"] | None = None,
    ) -> None:
        self.name = name
        self.ra = ra
        self.dec = dec
        self.patch_arcsec = patch_arcsec
        self.whole = whole
        self.moves = moves
        self._centres = centres

    @property
    def centres(self) -> Float[np.ndarray, "patch 2"]:
        """Patch centres on the plane, arcsec (x, y)."""
        return self._centres().plane if callable(self._centres) else self._centres

    def __len__(self) -> int:
        return len(self.centres)

    def identity(self) -> list[Any]:
        """Name, tangent point and patches, as JSON values: what hashes know of a cell."""
        patches = "whole" if self.whole else np.round(self.centres, 6).tolist()
        return [self.name, round(self.ra, 9), round(self.dec, 9), patches]

    def sky_centres(self) -> tuple[Float[np.ndarray, " patch"], Float[np.ndarray, " patch"]]:
        """Right ascension and declination of the patch centres, degrees."""
        if callable(self._centres):
            return self._centres().ra, self._centres().dec
        return plane_radec(self, self.centres[:, 0], self.centres[:, 1])


class Centres(NamedTuple):
    """Where the patches of a cell lie: arcsec on its plane (x, y), and on the sky, degrees."""

    plane: Float[np.ndarray, "patch 2"]
    ra: Float[np.ndarray, " patch"]
    dec: Float[np.ndarray, " patch"]


def plane_wcs(cell: Cell, grid_arcsec: float, x0: float, y0: float, shape: tuple) -> WCS:
    """WCS of a window of the cell's plane, north up.

    x0, y0: plane position (arcsec) of the outer corner of the first pixel. shape: (rows,
    columns) of the window.
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [cell.ra, cell.dec]
    wcs.wcs.cdelt = [-grid_arcsec / 3600, grid_arcsec / 3600]
    # FITS counts pixels from 1 at their centres: the first pixel's outer corner is at 0.5.
    wcs.wcs.crpix = [0.5 - x0 / grid_arcsec, 0.5 - y0 / grid_arcsec]
    wcs.wcs.radesys = "ICRS"
    wcs.array_shape = tuple(shape)
    wcs.wcs.set()
    return wcs


def given_wcs(
    shape: tuple[int, int], ra: float, dec: float, pixel_arcsec: float, rotation_deg: float = 0.0
) -> WCS:
    """TAN with the image's centre at ra, dec; rotation_deg: position angle of +y, east of north."""
    angle = np.radians(rotation_deg)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = (pixel_arcsec / 3600) * np.array(
        [[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def footprint(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float, float]:
    """A circle around an image of `shape` (rows, columns): centre (ICRS degrees), radius (arcsec).

    NaN where the WCS leads to no sky.
    """
    rows, columns = shape
    y, x = np.meshgrid(
        np.linspace(-0.5, rows - 0.5, OUTLINE_POINTS),
        np.linspace(-0.5, columns - 0.5, OUTLINE_POINTS),
    )
    sky = wcs.pixel_to_world(x.ravel(), y.ravel()).icrs
    centre = wcs.pixel_to_world((columns - 1) / 2, (rows - 1) / 2).icrs
    away = sky.separation(centre).arcsec
    reach = float(np.nanmax(away)) if np.isfinite(away).any() else float("nan")
    return float(centre.ra.deg), float(centre.dec.deg), reach


def patch_wcs(cell: Cell, row: int, grid_arcsec: float, pixels: int) -> WCS:
    """WCS of one patch's own pixels (`pixels` × `pixels`), north up on the cell's plane."""
    x, y = cell.centres[row]
    half = pixels * grid_arcsec / 2
    wcs = plane_wcs(cell, grid_arcsec, x - half, y - half, (pixels, pixels))
    return wcs if cell.moves is None else _moved(wcs, cell.moves[row], cell.centres[row])


def _moved(wcs: WCS, move: Float[np.ndarray, " 3"], centre: Float[np.ndarray, " 2"]) -> WCS:
    """The WCS of a patch whose content appears at dx, dy from where it should, and turned.

    What lies at p from the patch's centre appears at R p + d, so that the pixel at q from it shows
    the sky at R⁻¹ (q − d).
    """
    dx, dy, angle = move
    grid_arcsec = wcs.wcs.cdelt[1] * 3600
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = (np.array(wcs.array_shape)[::-1] + 1) / 2  # FITS counts from 1
    wcs.wcs.crpix = middle + (np.array([dx, dy]) - turn @ centre) / grid_arcsec
    wcs.wcs.pc = turn.T
    # x grows to the west: CDELT's sign turns the rotation of x into that of right ascension.
    wcs.wcs.set()
    return wcs


def plane_xy(cell: Cell, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plane position (arcsec) of sky positions (degrees, ICRS); NaN behind the tangent point."""
    x, y = plane_wcs(cell, 1.0, 0.0, 0.0, (1, 1)).world_to_pixel_values(ra, dec)
    return np.asarray(x + 0.5), np.asarray(y + 0.5)


def plane_radec(cell: Cell, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sky position (degrees, ICRS) of plane positions (arcsec)."""
    wcs = plane_wcs(cell, 1.0, 0.0, 0.0, (1, 1))
    ra, dec = wcs.pixel_to_world_values(x - 0.5, y - 0.5)
    return np.asarray(ra), np.asarray(dec)


def cells(config: Config) -> list[Cell]:
    """The cells that the config's sky consists of, sorted by name.

    Rectangles up to 25′ are a cell each, with the plane at their centre; wider sky is cut along
    HEALPix pixels, and a patch belongs to the cell that holds its centre.
    """
    regions = [] if isinstance(config.sky, Moc) else config.sky
    narrow = bool(regions) and all(_is_narrow(region) for region in regions)
    if narrow and config.cell_order == "auto":
        names = ["field"] if len(regions) == 1 else [f"field{i}" for i in range(len(regions))]
        found = [
            _region_cell(n, r, config.patch.arcsec) for n, r in zip(names, regions, strict=True)
        ]
        return sorted(found, key=lambda cell: cell.name)
    order = HEALPIX_ORDER if config.cell_order == "auto" else config.cell_order
    return _healpix_cells(config, order)


def _is_narrow(region: Region) -> bool:
    return max(region.width_arcmin, region.height_arcmin) <= ONE_CELL_ARCMIN


def _region_cell(name: str, region: Region, patch_arcsec: float) -> Cell:
    """A rectangle as one cell: abutting patches, centred on the rectangle."""
    columns = max(1, round(region.width_arcmin * 60 / patch_arcsec))
    rows = max(1, round(region.height_arcmin * 60 / patch_arcsec))
    x = (np.arange(columns) - (columns - 1) / 2) * patch_arcsec
    y = (np.arange(rows) - (rows - 1) / 2) * patch_arcsec
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    centres = np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)
    return Cell(name, region.ra, region.dec, patch_arcsec, centres)


def _healpix_cells(config: Config, order: int) -> list[Cell]:
    healpix = HEALPix(nside=2**order, order="nested", frame="icrs")
    coverage = _Coverage(config)
    candidates = coverage.candidates(healpix)
    middles = healpix.healpix_to_skycoord(candidates)
    inside = coverage.holds_pixels(healpix, candidates)
    patch_arcsec = config.patch.arcsec
    found: list[Cell] = []
    cut: list[Cell] = []
    for index, ra, dec, whole in zip(
        candidates, middles.ra.deg.tolist(), middles.dec.deg.tolist(), inside, strict=True
    ):
        name = f"o{order}p{index:07d}"
        all_of_it = partial(_pixel_patches, order, index, ra, dec, patch_arcsec)
        (found if whole else cut).append(Cell(name, ra, dec, patch_arcsec, all_of_it, whole=True))
    found += _held_parts(coverage, cut)
    if not found:
        raise UserError("sky: holds no patch; give a larger region or a smaller patch.arcsec")
    return sorted(found, key=lambda cell: cell.name)


def _held_parts(coverage: "_Coverage", cut: list[Cell]) -> Iterator[Cell]:
    """Cells with those of their patches whose centres lie in the sky that is asked for."""
    # Positions of many cells are looked up at once: most of a look-up's time is its beginning.
    for first in range(0, len(cut), LOOKED_UP):
        some = cut[first : first + LOOKED_UP]
        sky = [cell.sky_centres() for cell in some]
        held = coverage.holds(*(np.concatenate(axis) for axis in zip(*sky, strict=True)))
        bounds = np.cumsum([len(cell) for cell in some])[:-1]
        for cell, own in zip(some, np.split(held, bounds), strict=True):
            if own.any():
                centres = cell.centres[own]
                whole = bool(own.all())
                yield Cell(cell.name, cell.ra, cell.dec, cell.patch_arcsec, centres, whole=whole)


# 30 MB at most: of a wide sky only the cells at hand are kept.
@lru_cache(maxsize=1024)
def _pixel_patches(order: int, index: int, ra: float, dec: float, patch_arcsec: float) -> Centres:
    """All patches whose centres lie in a HEALPix pixel, on the plane at its middle."""
    healpix = HEALPix(nside=2**order, order="nested")
    reach = int(np.ceil(_pixel_reach(order) / patch_arcsec)) + 1
    steps = np.arange(-reach, reach + 1) * patch_arcsec
    y, x = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    lon, lat = plane_radec(Cell("", ra, dec, patch_arcsec, np.zeros((0, 2))), x, y)
    inside = healpix.lonlat_to_healpix(lon * u.deg, lat * u.deg) == index
    found = Centres(np.stack([x[inside], y[inside]], axis=1), lon[inside], lat[inside])
    for shared in found:
        shared.flags.writeable = False
    return found


@cache
def _pixel_reach(order: int) -> float:
    """Arcsec within which a pixel lies around its middle: at most about its resolution."""
    return float(HEALPix(nside=2**order).pixel_resolution.to_value("arcsec"))


class _Coverage:
    """Which sky the config asks for: rectangles or a MOC."""

    def __init__(self, config: Config) -> None:
        self.regions: list[Region] = []
        self.moc = None
        if not isinstance(config.sky, Moc):
            self.regions = config.sky
            return
        from mocpy import MOC

        path = config.data / config.sky.moc
        try:
            self.moc = MOC.from_fits(path)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"sky.moc: {path} can't be read as a MOC ({reason})") from None

    def candidates(self, healpix: HEALPix) -> list[int]:
        """HEALPix pixels that may hold a patch of this sky."""
        if self.moc is not None:
            order = int(np.log2(healpix.nside))
            return [int(i) for i in self.moc.degrade_to_order(order).flatten()]
        found: set[int] = set()
        for region in self.regions:
            # Sample the rectangle finer than a pixel: no pixel that holds a patch is missed
            # by more than an empty candidate's cost.
            step = healpix.pixel_resolution.to_value("arcmin") / 4
            x = _samples(region.width_arcmin, step) * 60
            y = _samples(region.height_arcmin, step) * 60
            plane = Cell("", region.ra, region.dec, 1.0, np.zeros((0, 2)))
            grid_x, grid_y = np.meshgrid(x, y)
            ra, dec = plane_radec(plane, grid_x.ravel(), grid_y.ravel())
            sky = SkyCoord(ra, dec, unit="deg")
            found |= {int(i) for i in healpix.skycoord_to_healpix(sky)}
        return sorted(found)

    def holds_pixels(self, healpix: HEALPix, indices: list[int]) -> list[bool]:
        """Whether each HEALPix pixel certainly lies in this sky as a whole."""
        if self.moc is not None:
            order = int(np.log2(healpix.nside))
            missing = {int(i) for i in self.moc.complement().degrade_to_order(order).flatten()}
            return [index not in missing for index in indices]
        reach = _pixel_reach(int(np.log2(healpix.nside)))
        middles = healpix.healpix_to_skycoord(indices)
        found = np.zeros(len(indices), bool)
        for region in self.regions:
            centre = SkyCoord(region.ra, region.dec, unit="deg")
            farthest = middles.separation(centre).rad + reach * ARCSEC
            # The plane stretches by sec² of the distance from its tangent point, at most.
            near = np.flatnonzero(farthest < MOST_DISTANT)
            margin = reach / np.cos(farthest[near]) ** 2
            ra, dec = middles.ra.deg[near], middles.dec.deg[near]
            found[near] |= in_region(region, ra, dec, margin_arcsec=-margin)
        return found.tolist()

    def holds(self, ra: np.ndarray, dec: np.ndarray) -> Bool[np.ndarray, " patch"]:
        """Whether each position lies in this sky."""
        if self.moc is not None:
            return np.asarray(self.moc.contains_skycoords(SkyCoord(ra, dec, unit="deg")))
        return np.logical_or.reduce([in_region(region, ra, dec) for region in self.regions])


def _samples(width: float, step: float) -> np.ndarray:
    return np.linspace(-width / 2, width / 2, int(np.ceil(width / step)) + 1)


def in_region(
    region: Region,
    ra: np.ndarray,
    dec: np.ndarray,
    margin_arcsec: float | Float[np.ndarray, " position"] = 0.0,
) -> Bool[np.ndarray, " position"]:
    """Whether positions (degrees) lie in a rectangle grown by `margin_arcsec` on each side.

    A negative margin shrinks it.
    """
    plane = Cell("", region.ra, region.dec, 1.0, np.zeros((0, 2)))
    with np.errstate(invalid="ignore"):
        x, y = plane_xy(plane, ra, dec)
        in_x = np.abs(x) <= region.width_arcmin * 30 + margin_arcsec
        in_y = np.abs(y) <= region.height_arcmin * 30 + margin_arcsec
    # The gnomonic plane shows the far side of the sky too.
    centre = _vectors(np.asarray(region.ra), np.asarray(region.dec))
    near = _vectors(ra, dec) @ centre > np.cos(np.radians(89.0))
    return in_x & in_y & near


def splits(config: Config, sky_cells: list[Cell]) -> dict[str, UInt8[np.ndarray, " patch"]]:
    """The split of every patch: 0 none, 1 train, 2 validation, 3 test.

    Held-out regions, stripes of patches (fewer than 20 cells), or whole cells by a hash of
    their name. A patch whose footprint + 3″ touches another split gets 0: train gives way to
    validation, and both to test.
    """
    split = config.split
    if isinstance(split.test, list):
        assigned = {c.name: _split_by_region(c, split.test, split.validation) for c in sky_cells}
    elif len(sky_cells) < MANY_CELLS:
        assigned = {
            c.name: _stripes(c, split.test, split.validation, split.seed) for c in sky_cells
        }
    else:
        assigned = {
            c.name: np.full(len(c), _hashed(c, split.test, split.validation, split.seed), np.uint8)
            for c in sky_cells
        }
    return _separated(sky_cells, assigned)


def _split_by_region(
    cell: Cell, regions: list[Region], validation: float
) -> UInt8[np.ndarray, " patch"]:
    """Patches wholly inside a region are test, those that touch one are in no split."""
    half = cell.patch_arcsec / 2
    corners = [(sx * half, sy * half) for sx in (-1, 1) for sy in (-1, 1)]
    split = _stripes(cell, 0.0, validation, 0)
    for region in regions:
        around = [
            in_region(region, *plane_radec(cell, cell.centres[:, 0] + x, cell.centres[:, 1] + y))
            for x, y in corners
        ]
        centre_near = in_region(
            region, *cell.sky_centres(), margin_arcsec=np.sqrt(2) * half + SEPARATION_ARCSEC
        )
        split[centre_near & (split != TEST)] = NONE
        split[np.logical_and.reduce(around)] = TEST
    return split


def _stripes(cell: Cell, test: float, validation: float, seed: int) -> UInt8[np.ndarray, " patch"]:
    """Stripes across the cell's longer side: test at one end, validation at the other."""
    width = np.ptp(cell.centres, axis=0)
    along = np.round(cell.centres[:, int(width[1] > width[0])] / cell.patch_arcsec, 6)
    stripes = np.unique(along)
    n = len(stripes)
    n_test = int(np.ceil(test * n)) if test else 0
    n_validation = max(1, round(validation * n)) if validation else 0
    # The stripes that touch a held-out one end in no split; without one left to train on, the
    # cell is too small to hold any sky out.
    gaps = (n_test > 0) + (n_validation > 0)
    if n_test + n_validation + gaps >= n and n_validation:
        n_validation, gaps = 0, int(n_test > 0)
    if n_test + gaps >= n:
        n_test = 0
    rank = np.searchsorted(stripes, along)
    if seed % 2 == 0:
        rank = n - 1 - rank
    split = np.full(len(cell), TRAIN, np.uint8)
    split[rank < n_test] = TEST
    split[rank >= n - n_validation] = VALIDATION
    return split


def _hashed(cell: Cell, test: float, validation: float, seed: int) -> int:
    """A cell's split from its name alone, so that adding cells moves none of the others."""
    digest = hashlib.sha256(f"{seed} {cell.name}".encode()).digest()
    value = int.from_bytes(digest[:8], "big") / 2**64
    if value < test:
        return TEST
    return VALIDATION if value < test + validation else TRAIN


def _separated(
    sky_cells: list[Cell], assigned: dict[str, UInt8[np.ndarray, " patch"]]
) -> dict[str, UInt8[np.ndarray, " patch"]]:
    """Take patches out of every split that come within 3″ of a patch of a stronger split."""
    from scipy.spatial import cKDTree  # slow to import, and planning has no use for it

    # Squares of any orientation stay apart when their circumscribed circles do.
    side = max(cell.patch_arcsec for cell in sky_cells)
    reach = (np.sqrt(2) * side + SEPARATION_ARCSEC) * ARCSEC * 1.01
    middles = _vectors(*np.array([(cell.ra, cell.dec) for cell in sky_cells]).T)
    # From a cell's middle to its farthest patch; on the plane it is no nearer than on the sky.
    radii = np.array([np.hypot(*cell.centres.T).max() for cell in sky_cells]) * ARCSEC
    near = cKDTree(middles).query_ball_point(middles, radii + radii.max() + reach)

    @lru_cache(maxsize=64)
    def on_sky(number: int) -> Float[np.ndarray, "patch 3"]:
        return _vectors(*sky_cells[number].sky_centres())

    for strong in (TEST, VALIDATION):
        held_out = [np.flatnonzero(assigned[cell.name] == strong) for cell in sky_cells]
        for number, cell in enumerate(sky_cells):
            split = assigned[cell.name]
            weaker = np.flatnonzero((split != NONE) & (split < strong))
            others = [k for k in near[number] if len(held_out[k])] if len(weaker) else []
            touched = np.zeros(len(weaker), bool)
            for other in others:
                theirs = held_out[other]
                if other == number:
                    # Of one lattice: neighbours are those whose sides or corners meet.
                    tree, own = cKDTree(cell.centres[theirs]), cell.centres[weaker]
                    apart, _ = tree.query(own, p=np.inf)
                    touched |= apart < cell.patch_arcsec + SEPARATION_ARCSEC
                else:
                    tree, own = cKDTree(on_sky(other)[theirs]), on_sky(number)[weaker]
                    apart, _ = tree.query(own, distance_upper_bound=reach)
                    touched |= np.isfinite(apart)
            split[weaker[touched]] = NONE
    return assigned


def _vectors(ra: np.ndarray, dec: np.ndarray) -> Float[np.ndarray, "*position 3"]:
    """Unit vectors of positions, degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
