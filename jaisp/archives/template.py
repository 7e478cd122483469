"""Archive kind `template`: a table of tiles, and addresses that follow from their names.

So are the Legacy Surveys' bricks, HSC's tracts and patches, and DES's tiles served.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaisp.archives.coverage import Outline, margins, needed
from jaisp.archives.cutout import Square, cut, cutout_address
from jaisp.archives.tile import Plane, Tile, elsewhere, image_options, origin_of
from jaisp.cache import cache_folder
from jaisp.config import Config
from jaisp.config.survey import Centre, NamedPlane, NoiseEstimate, TemplateArchive
from jaisp.errors import TileError, UserError
from jaisp.files import partial_dir
from jaisp.sky import Cell, cells
from jaisp.transfer.address import is_address
from jaisp.transfer.credentials import authorization
from jaisp.transfer.download import Wanted, ask, download, file_name

Columns = Mapping[str, Any]


def find_tiles(config: Config, survey: str) -> list[Tile]:
    """The tiles of a survey's bands that the config's sky needs.

    Raises UserError when the table, or a list of checksums, can't be read, or none covers the sky.
    """
    archive = config.surveys[survey].archive
    assert isinstance(archive, TemplateArchive)
    key = f"surveys.{survey}.archive"
    headers = authorization(archive, key)
    table = _table(config, survey, archive, key, headers)
    sky = cells(config)
    found = []
    for row, outline in _needed(table, sky, archive, key).items():
        part = cut(outline, sky) if archive.cutout else None
        columns = {name: _plain(table[name][row]) for name in table.colnames}
        sums = _checksums(config, archive, columns, key, headers)
        for band in config.surveys[survey].bands:
            found.append(_tile(config, survey, band, columns, sums, part))
    if not found:
        raise UserError(f"{key}.tiles: none of {len(table)} tiles covers the sky of this config")
    return found


def _table(
    config: Config,
    survey: str,
    archive: TemplateArchive,
    key: str,
    headers: Mapping[str, str],
) -> Any:
    from astropy.table import Table

    path: Path
    if isinstance(archive.tiles, str):
        wanted = Wanted(survey, archive.tiles)
        try:
            entry = download(wanted, config.fetch, lambda path, digest: None, headers)
        except TileError as error:
            raise UserError(f"{key}.tiles: {error}") from None
        path = cache_folder() / entry["file"]
    else:
        path = config.data / archive.tiles
    try:
        return Table.read(path)
    except Exception as error:  # readers of many formats raise many kinds
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{key}.tiles: {archive.tiles}: no table ({reason})") from None


def _needed(table: Any, sky: list[Cell], archive: TemplateArchive, key: str) -> dict[int, Outline]:
    """Rows of the tiles in which some patch lies deepest, and what these cover."""
    low, high = _bounds(table, archive, key)
    chosen: dict[int, Outline] = {}
    for cell in sky:
        near = _near(cell, low, high)
        outlines = [_rectangle(low[row], high[row]) for row in near]
        margin = np.array([margins(outline, cell) for outline in outlines])
        wanted = needed(margin.reshape(len(near), len(cell)), cell.patch_arcsec)
        chosen |= {int(near[n]): outlines[n] for n in np.flatnonzero(wanted)}
    return dict(sorted(chosen.items()))


def _bounds(table: Any, archive: TemplateArchive, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest ra, dec of every tile, degrees; ra may run beyond 0 or 360."""
    covers = archive.covers
    columns = (covers.ra, covers.dec)
    names = columns if isinstance(covers, Centre) else (*covers.ra, *covers.dec)
    for name in names:
        if name not in table.colnames:
            offered = ", ".join(table.colnames[:12])
            raise UserError(f"{key}.covers: the table has no column {name!r} (it has {offered})")
    if isinstance(covers, Centre):
        ra, dec = (np.asarray(table[name], float) for name in (covers.ra, covers.dec))
        half = covers.width_arcmin / 120
        wide = half / np.maximum(np.cos(np.radians(dec)), 0.01)
        return np.stack([ra - wide, dec - half], 1), np.stack([ra + wide, dec + half], 1)
    (ra1, ra2), (dec1, dec2) = covers.ra, covers.dec
    low = np.stack([np.asarray(table[name], float) for name in (ra1, dec1)], axis=1)
    high = np.stack([np.asarray(table[name], float) for name in (ra2, dec2)], axis=1)
    high[:, 0] = np.where(high[:, 0] < low[:, 0], high[:, 0] + 360, high[:, 0])
    return low, high


def _near(cell: Cell, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Rows of the tiles that may touch a cell: a few of a million."""
    reach = (np.hypot(*cell.centres.T).max() + cell.patch_arcsec) / 3600
    middle, half = (low + high) / 2, (high - low) / 2
    wide = reach / max(np.cos(np.radians(min(abs(cell.dec) + reach, 89.0))), 0.01)
    away = np.abs((middle[:, 0] - cell.ra + 180) % 360 - 180)
    return np.flatnonzero(
        (away <= half[:, 0] + wide) & (np.abs(middle[:, 1] - cell.dec) <= half[:, 1] + reach)
    )


def _rectangle(low: np.ndarray, high: np.ndarray) -> Outline:
    """Four corners, and points along the sides, which are no great circles."""
    share = np.linspace(0, 1, 5)[:-1]
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    return Outline(np.concatenate([a + share[:, None] * (b - a) for a, b in sides]))


def _tile(
    config: Config,
    survey: str,
    band: str,
    columns: Columns,
    sums: Mapping[str, str],
    part: Square | None,
) -> Tile:
    content, key = config.surveys[survey], f"surveys.{survey}.archive"
    archive = content.archive
    assert isinstance(archive, TemplateArchive)
    names = {**columns, "band": archive.band_names.get(band, band)}

    def plane(source: NamedPlane, name: str) -> Plane:
        text = _filled(source.url or archive.science.url, names, f"{key}.{name}.url")
        found = _plane(config, text, source, sums, f"{key}.{name}.url")
        if part is None or not isinstance(found.path, str):
            return found
        address = cutout_address(found.path, str(archive.cutout), part, content.pixel_arcsec)
        return replace(found, path=address, sha256="")  # the checksum is of the whole file

    noise = None if isinstance(archive.noise, NoiseEstimate) else archive.noise
    return Tile(
        survey=survey,
        band=band,
        id=_filled(archive.tile, names, f"{key}.tile"),
        science=plane(archive.science, "science"),
        noise=plane(noise, "noise") if noise else None,
        mask=plane(archive.mask, "mask") if archive.mask else None,
        **image_options(archive, archive.noise.kind, archive.mask),
        origin=origin_of(archive),
    )


def _plane(
    config: Config, text: str, source: NamedPlane, sums: Mapping[str, str], key: str
) -> Plane:
    if is_address(text):
        return Plane(elsewhere(text, key), source.hdu, sha256=sums.get(file_name(text), ""))
    path = config.data / text
    if not path.resolve().is_relative_to(config.data.resolve()):
        raise UserError(f"{key}: {text}: outside of the data folder; refused")
    if not path.is_file():
        raise UserError(f"{key}: no such file: {path}")
    return Plane(path, source.hdu, None, path.stat().st_size, sums.get(path.name, ""))


def _checksums(
    config: Config,
    archive: TemplateArchive,
    columns: Columns,
    key: str,
    headers: Mapping[str, str],
) -> dict[str, str]:
    """By file name, what a tile's list of checksums says."""
    if archive.checksums is None:
        return {}
    address = _filled(archive.checksums, columns, f"{key}.checksums")
    if not is_address(address):
        raise UserError(f"{key}.checksums: {address}: no address (http, https, s3)")
    try:
        text = ask(address, partial_dir(config), config.fetch, headers).decode("utf-8", "replace")
    except TileError as error:
        raise UserError(f"{key}.checksums: {error}") from None
    return dict(_sums(text))


def _sums(text: str) -> Iterator[tuple[str, str]]:
    """Lines of sha256sum: digits, a space, a space or an asterisk, and the name."""
    for line in text.splitlines():
        digits, _, name = line.strip().partition(" ")
        if len(digits) == 64 and set(digits.lower()) <= set("0123456789abcdef"):
            yield name.strip().lstrip("*").rpartition("/")[2], digits.lower()


def _filled(text: str, columns: Columns, key: str) -> str:
    try:
        return text.format_map(columns)
    except KeyError as error:
        offered = ", ".join(columns)
        raise UserError(f"{key}: the table has no column {error} (it has {offered})") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{key}: {error}") from None


def _plain(value: Any) -> Any:
    """A table's value as Python's own, text stripped."""
    value = value.item() if hasattr(value, "item") else value
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else value
