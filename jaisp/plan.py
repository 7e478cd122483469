"""Stage plan: sky and surveys of the config → the tiles that cover them, and how much that is.

The only stage that asks archives what they have.
"""

import logging

from jaisp.archives import find_tiles
from jaisp.archives.table import tile_planes, write_tiles
from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.progress import track
from jaisp.sky import cells

log = logging.getLogger(__name__)


def plan(config: Config) -> dict:
    """Write results/RUN/tiles.ecsv; returns the counts of cells, patches, tiles and bytes.

    Raises UserError for a band that an archive lacks or a file that doesn't exist.
    """
    sky_cells = cells(config)
    tiles = []
    for survey in track(config.surveys, "plan"):
        found = find_tiles(config, survey)
        names = {(tile.band, tile.id) for tile in found}
        if len(names) != len(found):
            raise UserError(f"surveys.{survey}.archive: an image of one band is listed twice")
        for band in sorted({tile.band for tile in found if tile.zeropoint is None}):
            log.warning("%s %s: no zeropoint, its fluxes stay uncalibrated", survey, band)
        tiles += found
    write_tiles(config, tiles)
    patches = {cell.name: len(cell) for cell in sky_cells}
    total = _total_bytes(tiles)
    log.info(
        "%d cells, %d patches, %d tiles, %.1f MB",
        len(sky_cells),
        sum(patches.values()),
        len(tiles),
        total / 1e6,
    )
    counts = {s: sum(t.survey == s for t in tiles) for s in config.surveys}
    return {"cells": patches, "tiles": counts, "bytes": total}


def _total_bytes(tiles: list) -> int:
    """Bytes of all files, each counted once however many planes it holds."""
    files = {p.path: p.bytes for tile in tiles for p in tile_planes(tile).values()}
    return sum(files.values())
