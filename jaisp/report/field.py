"""The field and its coverage: where the patches lie, which split they are in, where tiles reach."""

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, PolyCollection
from matplotlib.patches import Rectangle
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaisp.archives.tile import Tile
from jaisp.config import Config
from jaisp.errors import TileError
from jaisp.report.svg import FAINT, INK, SPLIT_COLOURS, STYLE, panels, to_svg
from jaisp.sky import SPLITS, Cell, plane_xy
from jaisp.store.reader import Store
from jaisp.warp.tile import TileReader

MOST_FOOTPRINTS = 300
MOST_VECTORS = 3000
LINKED = 4.0  # patches' sides, about, from one patch of an island to the next
FAR = 6.0  # times the largest island: on one map it would be that small
MOST_ISLANDS = 4


def split_counts(store: Store) -> dict[str, int]:
    """How many patches are in each split."""
    return {name: int((store.index.split == number).sum()) for name, number in SPLITS.items()}


def coverage_map(config: Config, store: Store, tiles: list[Tile]) -> str:
    """One small map a survey and island of sky: patches coloured by split, stronger where more is
    covered."""
    surveys = [survey for survey in config.surveys if survey in store.surveys]
    parts = islands(store.index.ra, store.index.dec, store.patch_arcsec)
    columns = min(max(len(surveys), 2), 3)
    rows = -(-len(surveys) // columns)
    planes = [_common_plane(store, own) for own in parts]
    sides = [_Sides.of(store, own, plane) for own, plane in zip(parts, planes, strict=True)]
    most = 3.6 if len(parts) == 1 else 1.8  # inches
    tall = [float(np.clip(9.6 / columns * s.height / s.width, 1.2, most)) + 0.6 for s in sides]
    with matplotlib.rc_context(STYLE):
        heights = [height for height in tall for _ in range(rows)]
        figure, axes = panels(rows * len(parts), columns, 9.6, sum(heights), heights)
        for number, (own, plane, side) in enumerate(zip(parts, planes, sides, strict=True)):
            these = axes[number * rows * columns : (number + 1) * rows * columns]
            for ax in these[len(surveys) :]:
                ax.set_visible(False)
            for ax, survey in zip(these, surveys, strict=False):
                _draw_island(ax, store, survey, own, side)
                outlines = list(_footprints(tiles, survey, plane))
                ax.add_collection(
                    PolyCollection(outlines, facecolors="none", edgecolors=INK, linewidths=0.7)
                )
            these[0].set_ylabel("towards north, arcmin")
        counts = ", ".join(f"{count} {name}" for name, count in split_counts(store).items())
        return to_svg(figure, f"Maps of {len(store)} patches in {', '.join(surveys)}: {counts}.")


def islands(
    ra: Float[np.ndarray, " patch"], dec: Float[np.ndarray, " patch"], patch_arcsec: float
) -> list[Int[np.ndarray, " _"]]:
    """Numbers of the patches that are drawn together: fields that lie so far apart that on one map
    nothing of them could be seen have a map each, unless they are many.

    ra, dec: of the patches' centres, degrees.
    """
    everything = np.arange(len(ra))
    ra, dec = np.radians(ra), np.radians(dec)
    places = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    reach = np.radians(LINKED * patch_arcsec / 3600)
    # Boxes of sky that touch, as a large field has far more patches.
    boxes, box = np.unique(np.round(places / reach), axis=0, return_inverse=True)
    tree = cKDTree(boxes)
    touching = tree.sparse_distance_matrix(tree, 1.75, output_type="coo_matrix")
    count, island = connected_components(touching)
    parts = [everything[island[box.ravel()] == number] for number in range(count)]
    parts.sort(key=lambda own: int(own[0]))
    largest = max(float(np.ptp(places[own], axis=0).max()) for own in parts)
    apart = float(np.ptp(places, axis=0).max()) > FAR * (largest + reach / LINKED)
    return parts if apart and count <= MOST_ISLANDS else [everything]


@dataclass(frozen=True)
class _Sides:
    """Where patches lie on a plane, and how large they and their map are, arcmin."""

    x: Float[np.ndarray, " patch"]
    y: Float[np.ndarray, " patch"]
    half: float

    @classmethod
    def of(cls, store: Store, own: Int[np.ndarray, " patch"], plane: Cell) -> "_Sides":
        x, y = plane_xy(plane, store.index.ra[own], store.index.dec[own])
        return cls(x / 60, y / 60, store.patch_arcsec / 120)

    @property
    def width(self) -> float:
        return float(np.ptp(self.x)) + 2 * self.half

    @property
    def height(self) -> float:
        return float(np.ptp(self.y)) + 2 * self.half


def _draw_island(
    ax: Axes, store: Store, survey: str, own: Int[np.ndarray, " patch"], side: _Sides
) -> None:
    """Some patches, as one survey covers them."""
    share = store.coverage(survey)[own].mean(axis=1)
    names = np.array(list(SPLITS))[store.index.split[own]]
    squares = [
        Rectangle((left - side.half, low - side.half), 2 * side.half, 2 * side.half)
        for left, low in zip(side.x, side.y, strict=True)
    ]
    patches = PatchCollection(
        squares,
        facecolors=[SPLIT_COLOURS[name] for name in names],
        edgecolors="none",
        linewidths=0,
    )
    patches.set_alpha(0.12 + 0.88 * share)
    patches.set_rasterized(len(squares) > MOST_VECTORS)
    ax.add_collection(patches)
    margin = side.half + 0.04 * max(side.width, side.height)
    ax.set_xlim(side.x.min() - margin, side.x.max() + margin)
    ax.set_ylim(side.y.min() - margin, side.y.max() + margin)
    ax.set_aspect("equal", anchor="NW")
    fields = "" if len(own) == len(store) else f" ({', '.join(np.unique(store.index.cell[own]))})"
    ax.set_title(f"{survey}{fields}: {np.count_nonzero(share)} of {len(own)} patches covered")
    ax.set_xlabel("towards west, arcmin")
    for spine in ax.spines.values():
        spine.set_edgecolor(FAINT)


def _common_plane(store: Store, own: Int[np.ndarray, " patch"]) -> Cell:
    """A tangent plane in the middle of some patches."""
    found = np.unique(store.index.cell[own])
    if len(found) == 1:
        return store.cell(str(found[0]))
    ra, dec = np.radians(store.index.ra[own]), np.radians(store.index.dec[own])
    middle = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]).mean(1)
    centre_ra = np.degrees(np.arctan2(middle[1], middle[0])) % 360
    centre_dec = np.degrees(np.arctan2(middle[2], np.hypot(middle[0], middle[1])))
    return Cell("", float(centre_ra), float(centre_dec), store.patch_arcsec, np.zeros((0, 2)))


def _footprints(tiles: list[Tile], survey: str, plane: Cell) -> Iterator[np.ndarray]:
    """Corners of each tile's image in arcmin on the plane, equal ones once."""
    seen: set[tuple] = set()
    for tile in [tile for tile in tiles if tile.survey == survey][:MOST_FOOTPRINTS]:
        try:
            corners = _corners(tile)
        except TileError:
            continue  # a map without one outline is still a map; fetch has reported the file
        x, y = plane_xy(plane, corners[:, 0], corners[:, 1])
        outline = np.stack([x, y], axis=1) / 60
        key = tuple(outline.round(2).ravel())
        if key not in seen and np.isfinite(outline).all():
            seen.add(key)
            yield outline


def _corners(tile: Tile) -> np.ndarray:
    """Sky positions (degrees, ICRS) of the corners of a tile's image, [4, 2]."""
    reader = TileReader(tile)
    rows, columns = reader.shape
    reader.close()
    x = np.array([-0.5, -0.5, columns - 0.5, columns - 0.5])
    y = np.array([-0.5, rows - 0.5, rows - 0.5, -0.5])
    sky = reader.wcs.pixel_to_world(x, y).icrs
    return np.stack([sky.ra.deg, sky.dec.deg], axis=1)
