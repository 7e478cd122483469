"""The field and its coverage: where the patches lie, which split they are in, where tiles reach."""

from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.collections import PatchCollection, PolyCollection
from matplotlib.patches import Rectangle

from jaisp.archives.tile import Tile
from jaisp.config import Config
from jaisp.errors import TileError
from jaisp.report.svg import FAINT, INK, SPLIT_COLOURS, STYLE, panels, to_svg
from jaisp.sky import SPLITS, Cell, plane_xy
from jaisp.store.reader import Store
from jaisp.warp.tile import TileReader

MOST_FOOTPRINTS = 300
MOST_VECTORS = 3000


def split_counts(store: Store) -> dict[str, int]:
    """How many patches are in each split."""
    return {name: int((store.index.split == number).sum()) for name, number in SPLITS.items()}


def coverage_map(config: Config, store: Store, tiles: list[Tile]) -> str:
    """One small map a survey: patches coloured by split, stronger where more is covered."""
    plane = _common_plane(store)
    x, y = plane_xy(plane, store.index.ra, store.index.dec)
    x, y = x / 60, y / 60
    half = store.patch_arcsec / 120
    height = float(np.ptp(y)) + 2 * half
    width = float(np.ptp(x)) + 2 * half
    surveys = [survey for survey in config.surveys if survey in store.surveys]
    columns = min(max(len(surveys), 2), 3)
    rows = -(-len(surveys) // columns)
    each = 9.6 / columns
    tall = float(np.clip(each * height / width, 1.2, 3.6)) + 0.6
    names = np.array(list(SPLITS))[store.index.split]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(rows, columns, 9.6, rows * tall)
        for ax in axes[len(surveys) :]:
            ax.set_visible(False)
        for ax, survey in zip(axes, surveys, strict=False):
            share = store.coverage(survey).mean(axis=1)
            squares = [
                Rectangle((left - half, low - half), 2 * half, 2 * half)
                for left, low in zip(x, y, strict=True)
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
            outlines = list(_footprints(tiles, survey, plane))
            ax.add_collection(
                PolyCollection(outlines, facecolors="none", edgecolors=INK, linewidths=0.7)
            )
            margin = 0.04 * max(width, height)
            ax.set_xlim(x.min() - half - margin, x.max() + half + margin)
            ax.set_ylim(y.min() - half - margin, y.max() + half + margin)
            ax.set_aspect("equal", anchor="NW")
            ax.set_title(f"{survey}: {np.count_nonzero(share)} of {len(store)} patches covered")
            ax.set_xlabel("towards west, arcmin")
            for spine in ax.spines.values():
                spine.set_edgecolor(FAINT)
        axes[0].set_ylabel("towards north, arcmin")
        counts = ", ".join(f"{count} {name}" for name, count in split_counts(store).items())
        return to_svg(figure, f"Maps of {len(store)} patches in {', '.join(surveys)}: {counts}.")


def _common_plane(store: Store) -> Cell:
    """A tangent plane in the middle of all patches."""
    if len(store.cells) == 1:
        return store.cell(store.cells[0])
    ra, dec = np.radians(store.index.ra), np.radians(store.index.dec)
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
