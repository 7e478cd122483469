"""The split: which patches are trained on, and which are held out."""

import hashlib
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

from jaisp.config import Config
from jaisp.config.geometry import Region
from jaisp.sky.coverage import in_region
from jaisp.sky.plane import ARCSEC, Cell, plane_radec, unit_vectors

SEPARATION_ARCSEC = 3.0
MANY_CELLS = 20
NONE, TRAIN, VALIDATION, TEST = 0, 1, 2, 3
SPLITS = {"none": NONE, "train": TRAIN, "validation": VALIDATION, "test": TEST}


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
    middles = unit_vectors(*np.array([(cell.ra, cell.dec) for cell in sky_cells]).T)
    # From a cell's middle to its farthest patch; on the plane it is no nearer than on the sky.
    radii = np.array([np.hypot(*cell.centres.T).max() for cell in sky_cells]) * ARCSEC
    near = cKDTree(middles).query_ball_point(middles, radii + radii.max() + reach)

    @lru_cache(maxsize=64)
    def on_sky(number: int) -> Float[np.ndarray, "patch 3"]:
        return unit_vectors(*sky_cells[number].sky_centres())

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
