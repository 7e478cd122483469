"""`tiles.ecsv`: every plane of every tile that a run uses, one row a plane."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from astropy.table import Table

from jaisp.archives.tile import Plane, Tile
from jaisp.cache import cache_folder
from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.files import atomic_write, read_json
from jaisp.transfer.address import is_address

PLANES = ("science", "noise", "mask", "psf")
COLUMNS = (
    *("survey", "band", "tile", "plane", "path", "hdu", "slice", "bytes", "estimate", "whole"),
    *("sha256", "options"),
)
OPTIONS = (
    "noise_kind",
    "bad_bits",
    "zeropoint",
    "psf_fwhm_arcsec",
    "psf_moffat_beta",
    "subtract_sky",
    "wcs",
    "origin",
    "linked",
)


def tiles_path(config: Config) -> Path:
    """Where a run's table of tiles stands."""
    return config.results / "tiles.ecsv"


def write_tiles(config: Config, tiles: list[Tile]) -> None:
    """Write the table; `options`, on science rows, holds what else a tile needs, as JSON."""
    rows = [row for tile in tiles for row in _rows(tile)]
    table = Table(rows=rows, names=COLUMNS)
    with atomic_write(tiles_path(config)) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)


def read_tiles(config: Config, *, fetched: bool = False) -> list[Tile]:
    """Read the table back, in its order.

    fetched: only tiles that were fetched whole, with the paths and checksums of the verified
    files, and their footprints.
    """
    path = tiles_path(config)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `jaisp plan` first")
    planes: dict[tuple, dict[str, dict]] = {}
    table = Table.read(path, format="ascii.ecsv")
    for name in {"estimate", "whole"} - set(table.colnames):  # tables of before they were kept
        table[name] = 0
    for row in table:
        entry = {name: row[name] for name in COLUMNS}
        key = (str(row["survey"]), str(row["band"]), str(row["tile"]))
        planes.setdefault(key, {})[str(row["plane"])] = entry
    tiles = [_tile(key, by_plane) for key, by_plane in planes.items()]
    if not fetched:
        return tiles
    verified = verified_planes(config)
    whole = [t for t in tiles if all(plane_key(t, n) in verified for n in tile_planes(t))]
    return [_at_verified(tile, verified) for tile in whole]


def verified_planes(config: Config) -> dict[str, dict]:
    """What the fetch receipts say of each verified plane: `file` in the cache, bytes, sha256, and
    its `hdu` where it isn't the archive's; of a science plane also its `footprint`."""
    verified: dict[str, dict] = {}
    for path in sorted((config.results / "receipts" / "fetch").glob("batch*.json")):
        verified |= read_json(path)["planes"]
    return verified


def tile_planes(tile: Tile) -> dict[str, Plane]:
    """The planes that a tile has, by name."""
    return {name: plane for name in PLANES if (plane := getattr(tile, name)) is not None}


def plane_key(tile: Tile, plane: str) -> str:
    """What names one plane of one tile in receipts."""
    return f"{tile.survey}/{tile.band}/{tile.id}/{plane}"


def _at_verified(tile: Tile, verified: dict[str, dict]) -> Tile:
    """The tile with the paths and checksums of its verified files."""
    planes: dict[str, Any] = {}
    for name, plane in tile_planes(tile).items():
        entry = verified[plane_key(tile, name)]
        path = cache_folder() / entry["file"]
        hdu = entry.get("hdu", plane.hdu)
        known = {"bytes": entry["bytes"], "sha256": entry["sha256"]}
        planes[name] = replace(plane, path=path, hdu=hdu, **known)
    circle = verified[plane_key(tile, "science")].get("footprint")
    return replace(tile, **planes, footprint=None if circle is None else tuple(circle))


def _rows(tile: Tile) -> list[tuple]:
    options = json.dumps({name: getattr(tile, name) for name in OPTIONS}, sort_keys=True)
    return [
        (tile.survey, tile.band, tile.id, name, str(plane.path), str(plane.hdu),
         -1 if plane.slice is None else plane.slice, plane.bytes, plane.estimate,
         plane.whole, plane.sha256, options if name == "science" else "")
        for name, plane in tile_planes(tile).items()
    ]  # fmt: skip


def _tile(key: tuple[str, str, str], by_plane: dict[str, dict]) -> Tile:
    survey, band, name = key
    found: dict[str, Any] = {n: _plane(by_plane[n]) if n in by_plane else None for n in PLANES}
    options = json.loads(str(by_plane["science"]["options"]))
    options = {"origin": {}, "linked": False} | options  # tables of before they were kept
    return Tile(survey=survey, band=band, id=name, **found, **options)


def _plane(entry: dict) -> Plane:
    hdu = str(entry["hdu"])
    number = int(entry["slice"])
    path = str(entry["path"])
    return Plane(
        path if is_address(path) else Path(path),
        int(hdu) if hdu.isdigit() else hdu,
        None if number < 0 else number,
        int(entry["bytes"]),
        str(entry["sha256"]) if entry["sha256"] else "",
        int(entry["estimate"]),
        int(entry["whole"]),
    )
