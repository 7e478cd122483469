"""The run's own tiles on patches that are displaced and turned by known small amounts."""

import numpy as np
from astropy.table import Table, vstack
from jaxtyping import Float64

from jaisp.archives.table import read_tiles, verified_planes, write_tiles
from jaisp.config import Config
from jaisp.files import write_receipt
from jaisp.inject.placement import SPLIT_NAMES
from jaisp.simulate.seeds import generator
from jaisp.sky import Cell, cells, splits
from jaisp.warp import warp

SHIFTS_MAS = (0.0, 50.0, 100.0, 200.0, 500.0)
CORNER_MAS = 80.0  # that the turn alone moves a patch's corner, at most
MAS = 1000.0


def inject_displaced(home: Config, derived: Config, name: str) -> Table:
    """Warp the displaced patches; returns the table of what each was moved by.

    Every survey's patches are moved by themselves. Sizes cycle over SHIFTS_MAS, directions are
    random; every other patch is also turned about its centre.
    """
    write_tiles(derived, read_tiles(home))
    write_receipt(derived, "fetch", "batch0", {"planes": verified_planes(home), "failed": []})
    split = splits(home, cells(home))
    tables, moves = [], {}
    for cell in cells(home):
        table = Table(
            {"row": np.arange(len(cell)), "x": cell.centres[:, 0], "y": cell.centres[:, 1]}
        )
        table["cell"] = cell.name
        table["split"] = [SPLIT_NAMES[int(number)] for number in split[cell.name]]
        for survey in home.surveys:
            rng = generator(home.inject.seed, "inject", name, cell.name, survey)
            move = _moves(cell, rng)
            moves[cell.name, survey] = move
            for number, axis in enumerate("xy"):
                table[f"d{axis}_mas_{survey}"] = MAS * move[:, number]
            table[f"angle_deg_{survey}"] = np.degrees(move[:, 2])
        tables.append(table)
    for survey in home.surveys:
        for cell in cells(derived):
            moved = Cell(
                cell.name,
                cell.ra,
                cell.dec,
                cell.patch_arcsec,
                cell.centres,
                cell.whole,
                moves[cell.name, survey],
            )
            warp(derived, moved, survey)
    return vstack(tables)


def _moves(cell: Cell, rng: np.random.Generator) -> Float64[np.ndarray, "patch 3"]:
    """dx, dy (arcsec) and turn (radians) of every patch."""
    count = len(cell)
    # In an order of their own, so that every size lies evenly over the sky, turned and not.
    order = rng.permutation(count)
    size = np.array(SHIFTS_MAS)[order % len(SHIFTS_MAS)] / MAS
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    most = CORNER_MAS / MAS / (cell.patch_arcsec / np.sqrt(2.0))
    turn = np.where(order // len(SHIFTS_MAS) % 2 == 1, rng.uniform(-most, most, count), 0.0)
    return np.stack([size * np.cos(angle), size * np.sin(angle), turn], axis=1)
