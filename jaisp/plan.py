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
    """Write results/RUN/tiles.ecsv; returns the counts of cells, patches, tiles and bytes (of files
    whose length nobody tells what is estimated, or none).

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
    total, estimated = _total_bytes(tiles)
    log.info(
        "%d cells, %d patches, %d tiles, %s%.1f MB",
        len(sky_cells),
        sum(patches.values()),
        len(tiles),
        "about " if estimated else "",
        total / 1e6,
    )
    counts = {s: sum(t.survey == s for t in tiles) for s in config.surveys}
    return {"cells": patches, "tiles": counts, "bytes": total}


def _total_bytes(tiles: list) -> tuple[int, bool]:
    """Bytes of all files, each counted once however many planes it holds; whether some of it is
    an estimate."""
    files = {p.path: p for tile in tiles for p in tile_planes(tile).values()}
    total = sum(p.bytes or p.estimate for p in files.values())
    return total, any(p.estimate and not p.bytes for p in files.values())
