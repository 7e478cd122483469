"""Where sources are injected: on a lattice turned by a random angle, each moved a little.

A turned lattice keeps sources apart, and puts them at all places within a pixel and within a token
evenly.
"""

import numpy as np
from astropy.table import Table, vstack
from jaxtyping import Int

from jaisp.config import Config
from jaisp.errors import TileError
from jaisp.sampling import in_squares
from jaisp.sky import NONE, SPLITS, TEST, TRAIN, VALIDATION, Cell, cells, splits

JITTER = 0.05  # of the lattice's side, each way
SNR = (5.0, 10.0, 30.0, 100.0)
EACH, BOTH = "each", "both"
TEST_SHARE = 0.4  # of the patches, where only some can hold sources
SPLIT_NAMES = {number: name for name, number in SPLITS.items()}


def place_sources(config: Config, rng: np.random.Generator, edge_arcsec: float = 0.0) -> Table:
    """cell, row, x, y, split of isolated positions, over every patch of a split.

    edge_arcsec: how far they keep from a patch's edge. Raises TileError where none fits.
    """
    sky_cells = cells(config)
    chosen = patches_with_sources(config, sky_cells)
    split = splits(config, sky_cells)
    parts = []
    for cell in sky_cells:
        rows = chosen[cell.name]
        if not len(rows):
            continue
        own = _lattice(cell, rows, config.inject.spacing_arcsec, edge_arcsec, rng)
        # A cell of a patch or two may hold no node of the lattice.
        if len(own):
            own["cell"] = cell.name
            own["split"] = [SPLIT_NAMES[int(n)] for n in split[cell.name][own["row"]]]
            parts.append(own["cell", "row", "x", "y", "split"])
    if not parts:
        raise TileError("its patches have no room for a source")
    return vstack(parts, metadata_conflicts="silent")


def patches_with_sources(
    config: Config, sky_cells: list[Cell]
) -> dict[str, Int[np.ndarray, " patch"]]:
    """By cell, the rows that hold sources: all of the three splits, or `inject.patches` of them,
    in squares of neighbours, evenly over the sky."""
    split = splits(config, sky_cells)
    numbers = np.concatenate([split[cell.name] for cell in sky_cells])
    names = np.repeat([cell.name for cell in sky_cells], [len(cell) for cell in sky_cells])
    centres = np.concatenate([cell.centres for cell in sky_cells])
    kept = np.flatnonzero(numbers != NONE)
    if len(kept) > config.inject.patches:
        shares = _shares(numbers[kept], config.inject.patches)
        parts = []
        for number, most in shares.items():
            own = np.flatnonzero(numbers == number)
            parts.append(own[in_squares(names[own], centres[own], config.patch.arcsec, most)])
        kept = np.sort(np.concatenate(parts))
    first = np.cumsum([0, *(len(cell) for cell in sky_cells)])
    return {
        cell.name: kept[(kept >= start) & (kept < start + len(cell))] - start
        for cell, start in zip(sky_cells, first[:-1], strict=True)
    }


def add_levels(sources: Table, kinds: tuple[str, ...], rng: np.random.Generator) -> None:
    """Give each source a S/N and a kind, every combination equally often in each patch."""
    combinations = [(snr, kind) for snr in SNR for kind in kinds]
    number = np.zeros(len(sources), int)
    patches = np.unique(
        np.stack([sources["cell"].astype(str), sources["row"].astype(str)]), axis=1,
        return_inverse=True,
    )[1].ravel()  # fmt: skip
    spare = rng.permutation(len(combinations))
    for patch in np.unique(patches):
        own = np.flatnonzero(patches == patch)
        # What a patch has left over goes on where the last one stopped.
        turn = np.resize(spare, len(own))
        spare = np.roll(spare, -len(own))
        number[own] = rng.permutation(turn)
    sources["snr"] = np.array([snr for snr, _ in combinations])[number]
    sources["kind"] = np.array([kind for _, kind in combinations])[number]


def _shares(split: np.ndarray, most: int) -> dict[int, int]:
    """How many patches of each split hold sources, of more than `most`: TEST_SHARE of them for
    tests as far as there are so many, the others in proportion."""
    count = {number: int((split == number).sum()) for number in SPLIT_NAMES if number != NONE}
    test = min(count[TEST], int(TEST_SHARE * most))
    test = max(test, most - count[TRAIN] - count[VALIDATION])
    rest = most - test
    validation = round(rest * count[VALIDATION] / max(count[TRAIN] + count[VALIDATION], 1))
    return {TRAIN: rest - validation, VALIDATION: validation, TEST: test}


def _lattice(
    cell: Cell, rows: np.ndarray, spacing: float, edge: float, rng: np.random.Generator
) -> Table:
    """row, x, y of the lattice's nodes that fall into the patches `rows`."""
    low, high = cell.centres.min(axis=0), cell.centres.max(axis=0)
    reach = np.hypot(*(high - low + cell.patch_arcsec)) / 2 + spacing
    steps = np.arange(-np.ceil(reach / spacing), np.ceil(reach / spacing) + 1)
    nodes = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    nodes = nodes + rng.uniform(-0.5, 0.5, 2) + rng.uniform(-JITTER, JITTER, nodes.shape)
    angle = rng.uniform(0.0, np.pi / 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    place = (low + high) / 2 + spacing * nodes @ turn.T
    # Patches abut on a square grid: which one holds a node follows from its indices.
    side = cell.patch_arcsec
    owner = {tuple(index): row for row, index in zip(rows, _index(cell, rows), strict=True)}
    index = np.rint((place - cell.centres[0]) / side).astype(int)
    row = np.array([owner.get(tuple(one), -1) for one in index.tolist()])
    inside = row >= 0
    away = np.abs(place[inside] - cell.centres[row[inside]]).max(axis=1)
    inside[inside] = away < side / 2 - edge
    order = np.argsort(row[inside], kind="stable")
    x, y = place[inside][order].T
    return Table({"row": row[inside][order], "x": x, "y": y})


def _index(cell: Cell, rows: np.ndarray) -> list[list[int]]:
    away = (cell.centres[rows] - cell.centres[0]) / cell.patch_arcsec
    return np.rint(away).astype(int).tolist()
