"""A group that is whole and made from the same tiles by the same code is kept as it is.

What it was made from is noted beside the store, out of Snakemake's sight: it deletes a job's
receipt before it runs the job again, also when only a survey or a cell was added elsewhere.
"""

import hashlib
import json
from pathlib import Path

from jaisp.archives import Tile
from jaisp.archives.table import tile_planes
from jaisp.config import Config, group_hash, stage_version
from jaisp.files import folder_sha256, read_json, write_json
from jaisp.sky import Cell


def made_from(config: Config, cell: Cell, survey: str, tiles: list[Tile]) -> str:
    """Hash of all that a group's bytes depend on: config, code, and the tiles' checksums."""
    content = {
        "group": group_hash(config, survey, cell),
        "code": stage_version("warp"),
        "tiles": [
            [tile.band, tile.id, sorted((n, p.sha256) for n, p in tile_planes(tile).items())]
            for tile in tiles
        ],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def kept_receipt(config: Config, cell: Cell, survey: str, origin: str, group: Path) -> dict | None:
    """The receipt of a group that can be kept: same origin, and every byte still as written."""
    note = _note(config, cell, survey)
    if not (note.is_file() and group.is_dir()):
        return None
    content = read_json(note)
    if content["made_from"] != origin or content["receipt"]["sha256"] != folder_sha256(group):
        return None
    return content["receipt"]


def note_receipt(config: Config, cell: Cell, survey: str, origin: str, receipt: dict) -> None:
    """Note what a group was made from, once it is in its place."""
    write_json(_note(config, cell, survey), {"made_from": origin, "receipt": receipt})


def _note(config: Config, cell: Cell, survey: str) -> Path:
    return config.results / ".groups" / f"{cell.name}.{survey}.json"
