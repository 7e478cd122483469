"""Archive kind `sia2`: a service of images (IVOA Simple Image Access 2.0, answers in ObsCore).

Rows of the answer are sorted into the planes of tiles by what the config says of them, and of
overlapping tiles those are taken that some patch lies deepest in.
"""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import numpy as np

from jaisp.archives.coverage import Outline, margins, needed, read_outline
from jaisp.archives.cutout import Square, cut, cutout_address
from jaisp.archives.tile import Plane, Tile, image_options, origin_of
from jaisp.config import Config
from jaisp.config.survey import ServedPlane, Sia2Archive
from jaisp.errors import TileError, UserError
from jaisp.files import partial_dir
from jaisp.sky import Cell, cells
from jaisp.transfer.address import check_address, is_s3
from jaisp.transfer.credentials import authorization
from jaisp.transfer.download import ask, file_name

log = logging.getLogger(__name__)

MOST_KB = 1e12  # of an image; a service that tells of more is mistaken
SCIENCE, NOISE, MASK = "science", "noise", "mask"


@dataclass(frozen=True)
class Row:
    """One image that a service has.

    name: of its file. outline: None where the service tells none. is_linked: whether the address
    is of a document that says where the image is. about: what provenance keeps. estimate: about how
    many bytes it has, 0 where the service doesn't tell.
    """

    address: str
    name: str
    band: str | None
    tile: str
    subtype: str | None
    outline: Outline | None
    is_linked: bool
    about: dict[str, str]
    estimate: int = 0


def find_tiles(config: Config, survey: str) -> list[Tile]:
    """The tiles of a survey's bands that the config's sky needs.

    Raises UserError when the service can't be asked, or lacks a band.
    """
    archive = config.surveys[survey].archive
    assert isinstance(archive, Sia2Archive)
    key = f"surveys.{survey}.archive"
    headers = authorization(archive, key)
    sky = cells(config)
    rows: dict[str, Row] = {}
    for cell in sky:
        try:
            answer = ask(question(archive, cell), partial_dir(config), config.fetch, headers)
            rows |= {row.address: row for row in read_answer(answer, archive)}
        except TileError as error:
            raise UserError(f"{key}.url: {error}") from None
    if archive.cloud_access:
        _say_what_is_in_no_bucket(survey, rows)
    found = list(_tiles(config, survey, rows, sky))
    _say_what_lacks(config, survey, found, rows)
    return found


def question(archive: Sia2Archive, cell: Cell) -> str:
    """The address that asks for all images that touch a cell's patches."""
    from pyvo.dal.sia2 import SIA2Query

    half = cell.patch_arcsec / np.sqrt(2)
    radius = (float(np.hypot(*cell.centres.T).max()) + half) / 3600
    place = (round(cell.ra, 6), round(cell.dec, 6), float(np.ceil(radius * 1e4) / 1e4))
    query = SIA2Query(archive.url, pos=[place], collection=archive.collection)
    query.update(archive.parameters)
    return f"{query.queryurl}{'&' if '?' in query.queryurl else '?'}{urlencode(query, doseq=True)}"


def read_answer(answer: bytes, archive: Sia2Archive) -> Iterator[Row]:
    """The rows of a service's VOTable. Raises TileError for what is none, or an error's message."""
    from astropy.io.votable.exceptions import VOWarning
    from pyvo.dal.exceptions import DALAccessError, DALOverflowWarning
    from pyvo.dal.sia2 import SIA2Results

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VOWarning)
            warnings.simplefilter("ignore", DALOverflowWarning)  # is told below
            from astropy.io.votable import parse

            results = SIA2Results(parse(io.BytesIO(answer)), url=archive.url)
    except (DALAccessError, VOWarning, ValueError, IndexError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TileError(f"answers with no table of images ({reason})") from None
    if results.status[0].upper() == "OVERFLOW":
        raise TileError("has more images than it tells at once; ask for less sky")
    names = [name.lower() for name in results.fieldnames]
    table = results.to_table()
    for row in table:
        values = {name: row[column] for name, column in zip(names, table.colnames, strict=True)}
        if (read := _row(values, archive)) is not None:
            yield read


def _row(values: Mapping[str, Any], archive: Sia2Archive) -> Row | None:
    address = _in_bucket(_text(values.get("cloud_access"))) if archive.cloud_access else None
    address = address or _text(values.get("access_url"))
    if address is None:
        return None
    # A service knows the way to itself.
    own = urlsplit(archive.url).hostname
    check_address(address, [own] if own else [])
    name = unquote(file_name(address))
    about = {
        column: text
        for column in ("obs_collection", "obs_publisher_did", "obs_release_date", "calib_level")
        if (text := _text(values.get(column))) is not None
    }
    return Row(
        address=address,
        name=name,
        band=_group(archive.band, name) or _text(values.get(archive.band_column.lower())),
        tile=_group(archive.tile, name) or _joined(values, archive.tile_columns) or name,
        subtype=_text(values.get("dataproduct_subtype")),
        outline=_outline(values),
        is_linked="content=datalink" in (_text(values.get("access_format")) or ""),
        about=about,
        estimate=_bytes(values.get("access_estsize")),
    )


def _joined(values: Mapping[str, Any], columns: list[str]) -> str | None:
    """What the columns say, with a dash between; None where one of them says nothing."""
    texts = [_text(values.get(column.lower())) for column in columns]
    return None if None in texts else "-".join(str(text) for text in texts)


def _in_bucket(told: str | None) -> str | None:
    """The address in `cloud_access`, {"aws": {"bucket_name": …, "key": …}}; None where it tells of
    no such bucket. Its region is not needed: buckets are found by their names."""
    try:
        bucket = json.loads(told or "{}").get("aws")
        return None if bucket is None else f"s3://{bucket['bucket_name']}/{bucket['key']}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TileError(f"tells of a cloud_access that names no bucket ({told!r:.80})") from None


def _outline(values: Mapping[str, Any]) -> Outline | None:
    """What the image covers: its region, or else a circle as wide as its field of view."""
    found = read_outline(values.get("s_region"))
    if found is not None:
        return found
    numbers = [_number(values.get(column)) for column in ("s_ra", "s_dec", "s_fov")]
    if not np.isfinite(numbers).all() or numbers[2] <= 0:
        return None
    return Outline(np.array([numbers[:2]]), numbers[2] / 2)


def _tiles(config: Config, survey: str, rows: Mapping[str, Row], sky: list[Cell]) -> Iterator[Tile]:
    """The tiles of every band that the sky needs."""
    archive, bands = config.surveys[survey].archive, config.surveys[survey].bands
    assert isinstance(archive, Sia2Archive)
    for band in bands:
        theirs = archive.band_names.get(band, band)
        planes = _planes(archive, [row for row in rows.values() if row.band == theirs])
        whole = {tile: own for tile, own in planes.items() if _is_whole(archive, own)}
        for tile in sorted(planes.keys() - whole.keys()):
            log.warning("%s %s %s: has not all of its planes; left out", survey, band, tile)
        for tile in _needed(whole, sky, survey, band):
            outline = whole[tile][SCIENCE].outline
            part = cut(outline, sky) if outline is not None and archive.cutout else None
            yield _tile(config, survey, band, tile, whole[tile], part)


def _planes(archive: Sia2Archive, rows: list[Row]) -> dict[str, dict[str, Row]]:
    """By tile, the image of each plane; of several the newest, by release and name."""
    rules: dict[str, ServedPlane] = {SCIENCE: archive.science}
    if isinstance(archive.noise, ServedPlane) and _is_apart(archive.noise):
        rules[NOISE] = archive.noise
    if archive.mask is not None and _is_apart(archive.mask):
        rules[MASK] = archive.mask
    found: dict[str, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: (row.about.get("obs_release_date", ""), row.name)):
        for plane, rule in rules.items():
            if _is_of(row, rule):
                found.setdefault(row.tile, {})[plane] = row
    return {tile: own for tile, own in found.items() if SCIENCE in own}


def _is_apart(rule: ServedPlane) -> bool:
    """Whether a plane has images of its own."""
    return rule.subtype is not None or rule.name is not None


def _is_of(row: Row, rule: ServedPlane) -> bool:
    # Services may have no subtypes: names must do then.
    if rule.subtype is not None and row.subtype is not None and row.subtype != rule.subtype:
        return False
    if rule.name is not None:
        return re.search(rule.name, row.name) is not None
    return rule.subtype is None or row.subtype is not None


def _is_whole(archive: Sia2Archive, own: Mapping[str, Row]) -> bool:
    needs_noise = isinstance(archive.noise, ServedPlane) and _is_apart(archive.noise)
    needs_mask = archive.mask is not None and _is_apart(archive.mask)
    return (NOISE in own or not needs_noise) and (MASK in own or not needs_mask)


def _needed(
    tiles: Mapping[str, Mapping[str, Row]], sky: list[Cell], survey: str, band: str
) -> list[str]:
    """Those in which some patch lies deepest; all of which nobody knows what they cover."""
    names = sorted(tiles)
    outlines = {name: tiles[name][SCIENCE].outline for name in names}
    unknown = [name for name, outline in outlines.items() if outline is None]
    if unknown:
        log.warning("%s %s: %d images without an outline are all taken", survey, band, len(unknown))
    known = {name: outline for name, outline in outlines.items() if outline is not None}
    chosen: set[str] = set(unknown)
    for cell in sky if known else ():
        margin = np.stack([margins(outline, cell) for outline in known.values()])
        wanted = needed(margin, cell.patch_arcsec)
        chosen |= {name for name, is_wanted in zip(known, wanted, strict=True) if is_wanted}
    return sorted(chosen)


def _tile(
    config: Config, survey: str, band: str, tile: str, own: Mapping[str, Row], part: Square | None
) -> Tile:
    content = config.surveys[survey]
    archive = content.archive
    assert isinstance(archive, Sia2Archive)
    noise = archive.noise if isinstance(archive.noise, ServedPlane) else None

    def plane(row: Row, hdu: int | str) -> Plane:
        if part is None:
            return Plane(row.address, hdu, estimate=row.estimate)
        address = cutout_address(row.address, str(archive.cutout), part, content.pixel_arcsec)
        about = int(row.estimate * part.share)
        return Plane(address, hdu, estimate=about, whole=row.estimate)

    science = own[SCIENCE]
    return Tile(
        survey=survey,
        band=band,
        id=tile,
        science=plane(science, archive.science.hdu),
        noise=plane(own.get(NOISE, science), noise.hdu) if noise else None,
        mask=plane(own.get(MASK, science), archive.mask.hdu) if archive.mask else None,
        **image_options(archive, archive.noise.kind, archive.mask),
        origin=science.about | origin_of(archive),
        linked=science.is_linked,
    )


def _say_what_lacks(
    config: Config, survey: str, found: list[Tile], rows: Mapping[str, Row]
) -> None:
    """UserError for the first band without a tile."""
    archive = config.surveys[survey].archive
    assert isinstance(archive, Sia2Archive)
    for band in config.surveys[survey].bands:
        if any(tile.band == band for tile in found):
            continue
        theirs = archive.band_names.get(band, band)
        offered = ", ".join(sorted({row.band for row in rows.values() if row.band})) or "none"
        raise UserError(
            f"surveys.{survey}.bands: the archive has no image of band {band!r} ({theirs!r} there; "
            f"it tells of {len(rows)} images here, of bands {offered}); mend band_names, or drop it"
        )


def _say_what_is_in_no_bucket(survey: str, rows: Mapping[str, Row]) -> None:
    others = sum(not is_s3(row.address) for row in rows.values())
    if others:
        log.warning(
            "%s: %d of %d images have no cloud_access, and come from their access_url",
            survey,
            others,
            len(rows),
        )


def _group(expression: str | None, name: str) -> str | None:
    match = re.search(expression, name) if expression else None
    return match[1] if match else None


def _text(value: object) -> str | None:
    """A value as text, None where it is missing."""
    if value is None or value is np.ma.masked:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip() or None


def _bytes(kilobytes: object) -> int:
    """What a service estimates; 0 for nothing, and for nonsense."""
    number = _number(kilobytes)
    return round(number * 1000) if 0 < number < MOST_KB else 0


def _number(value: object) -> float:
    try:
        return np.nan if value is None or value is np.ma.masked else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan
