"""Batches of cells: what one job of a stage goes over, and what its receipt says.

Up to MOST_JOBS cells × surveys are a job each. Beyond, a job takes a block of cells whose numbers
follow one another: of HEALPix pixels in nested order, which lie together on the sky and share
tiles. A block begins at a multiple of its size, so that sky that is added elsewhere moves no cell
to another block.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.files import read_json, receipt_path
from jaisp.sky import Cell

# Of one stage: with three stages of such jobs, 10⁴ cells stay below 10³ jobs.
MOST_JOBS = 320


def cell_batches(sky_cells: Sequence[Cell], surveys: int) -> dict[str, list[Cell]]:
    """The cells of each job and survey, by the batch's name: the cell's own, or that of its
    block's first number and their count, `o7p0001024n0128`."""
    size = 1
    while True:
        found = _blocks(sky_cells, size)
        if len(found) == 1 or len(found) * surveys <= MOST_JOBS:
            return found
        size *= 2


def chosen_batches(config: Config, sky_cells: Sequence[Cell], name: str | None) -> dict:
    """All batches, or the one of that name, or one cell by itself. Raises UserError for others."""
    found = cell_batches(sky_cells, len(config.surveys))
    if name is None:
        return found
    if name in found:
        return {name: found[name]}
    alone = [cell for cell in sky_cells if cell.name == name]
    if not alone:
        known = list(found)
        more = f", … ({len(known)})" if len(known) > 4 else ""
        raise UserError(f"--cell: {name!r} is not one of {', '.join(known[:4])}{more}")
    return {name: alone}


def cell_receipts(
    config: Config, stage: str, sky_cells: Sequence[Cell]
) -> dict[tuple[str, str], dict]:
    """What the receipts of a stage say of every cell and survey that they tell of."""
    found: dict[tuple[str, str], dict] = {}
    for name, batch in cell_batches(sky_cells, len(config.surveys)).items():
        for survey in config.surveys:
            path = receipt_path(config, stage, f"{name}.{survey}")
            if not path.is_file():
                continue
            content = read_json(path)
            # A block of which the sky holds one cell tells of it as that cell's own job would.
            by_cell = content.get("cells") or {content.get("cell", name): content}
            found |= {(c.name, survey): by_cell[c.name] for c in batch if c.name in by_cell}
    return found


def _blocks(sky_cells: Sequence[Cell], size: int) -> dict[str, list[Cell]]:
    if size == 1:
        return {cell.name: [cell] for cell in sky_cells}
    blocks = groupby(sky_cells, key=lambda cell: _block_name(cell.name, size))
    found: dict[str, list[Cell]] = {}
    for name, batch in blocks:
        found.setdefault(name, []).extend(batch)
    return found


def _block_name(cell: str, size: int) -> str:
    """The name of the block of `size` numbers that holds a cell's."""
    kind, number = re.fullmatch(r"(.*?)(\d*)", cell).groups()  # type: ignore[union-attr]
    first = int(number or 0) // size * size
    return f"{kind}{first:0{len(number) if number.startswith('0') else 1}d}n{size:04d}"
