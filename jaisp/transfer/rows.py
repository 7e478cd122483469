"""The rows of an image that are needed, instead of its whole file.

FITS that isn't packed keeps an image row by row: where a server sends ranges, a band of rows is one
of them. What comes is kept as a FITS file of its own.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from astropy.io import fits

from jaisp.cache import cache_folder, cache_name
from jaisp.config.fetch import FetchConfig
from jaisp.digest import BLOCK, digest_of
from jaisp.errors import TileError
from jaisp.files import locked
from jaisp.transfer.body import NoRanges, Watch, unwatched
from jaisp.transfer.download import (
    Verify,
    Wanted,
    ask,
    cached,
    download,
    file_name,
    place,
    receive_part,
)
from jaisp.transfer.part import Part, add_note

log = logging.getLogger(__name__)

LOOK = 10 * BLOCK  # bytes of a header that are asked for at a time
LONGEST_HEADER = 1000 * BLOCK
# A band with more of an image's rows than this is not worth a file of its own.
WORTH = 0.8
LAYOUT = ("BITPIX", "NAXIS1", "NAXIS2")
# What pixels' numbers mean; astropy strips it from a header with its structure.
SCALE = ("BSCALE", "BZERO")
# What is said of the whole file, and doesn't hold for a band.
WHOLE = ("CHECKSUM", "DATASUM", "EXTEND", "INHERIT")


class NotPlain(TileError):
    """Rows can't be had of this file: packed, a cube, or no FITS."""


Peer = tuple[str, int | str]  # an image: its file's address, and its HDU


@dataclass(frozen=True)
class Band:
    """Which rows of an image are needed.

    peers: the images of a tile, the science image first, all of which come in the same rows or
    whole. rows: first and last + 1, by the science image's header; None where none is. name: tells
    one choice of rows from another.
    """

    hdu: int | str
    peers: tuple[Peer, ...]
    name: str
    rows: Callable[[fits.Header], tuple[int, int] | None]

    @property
    def part(self) -> str:
        """What names it among the parts of a file."""
        return f"{self.hdu} {self.name}"


@dataclass(frozen=True)
class Place:
    """Where the pixels of an HDU begin, bytes; primary: the file's first header, if another."""

    header: fits.Header
    data: int
    primary: fits.Header | None = None


def download_rows(
    wanted: Wanted,
    band: Band,
    settings: FetchConfig,
    verify: Verify,
    headers: Mapping[str, str] | None = None,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Bring the rows of an image into the cache, as the one image of a file; returns what
    `download` does, the number of its `hdu`, and how many bytes were `saved`.

    Where rows can't be had of the file, or nearly all are needed, all of it comes: as `download`
    brings it. Raises TileError when it can't be had.
    """
    folder, key = place(wanted, band.part)
    part = Part(folder / key)
    with locked(part.notes):
        known = cached(part.notes, replace(wanted, bytes=0, sha256=""))
        if known is not None:
            return known | {"fetched": False}
        try:
            images = _images(wanted, band, folder, settings, headers)
            rows = _worth(images[band.peers[0]].header, band)
        except (NotPlain, NoRanges) as error:
            log.info("%s: %s; all of it is fetched", wanted.address, error)
            rows = None
        if rows is None:
            return download(wanted, settings, verify, headers, watch)
        found = images[wanted.address, band.hdu]
        span = _span(found, rows)
        receive_part(replace(wanted, bytes=0, span=span), part, settings, headers, watch)
        entry = _keep(wanted, part, found, rows, verify)
    return entry | {"fetched": True}


def find_image(read: Callable[[int, int], bytes], hdu: int | str) -> Place:
    """Where an image's pixels are. read: gives so many bytes from a place on, fewer at the end.

    Raises NotPlain for what is no plain FITS image, TileError where the HDU lacks.
    """
    offset, number, primary = 0, 0, None
    while True:
        try:
            header, data = _header(read, offset)
        except NoRanges:
            if primary is None:
                raise
            raise TileError(f"has no HDU {hdu!r}") from None
        name = str(header.get("EXTNAME", "")).strip().upper()
        if number == hdu or (isinstance(hdu, str) and name == hdu.upper()):
            if header.get("ZIMAGE") is True or header.get("XTENSION", "IMAGE") != "IMAGE":
                raise NotPlain(f"HDU {hdu} is packed")
            if header.get("NAXIS") != 2:
                raise NotPlain(f"HDU {hdu} has {header.get('NAXIS')} axes, not 2")
            if not all(isinstance(header.get(card), int) for card in LAYOUT):
                raise NotPlain(f"HDU {hdu} does not say how its pixels lie")
            return Place(header, data, primary)
        primary = header if number == 0 else primary
        offset, number = data + _padded(_data_bytes(header)), number + 1


def band_header(found: Place, rows: tuple[int, int]) -> fits.Header:
    """The header of a band of rows as a file's one image: its WCS moved, and what the file's first
    header says of it too."""
    header = fits.Header()
    header["SIMPLE"] = True
    header["BITPIX"] = found.header["BITPIX"]
    header["NAXIS"] = 2
    header["NAXIS1"] = found.header["NAXIS1"]
    header["NAXIS2"] = rows[1] - rows[0]
    header.extend(found.header.copy(strip=True))
    for keyword in SCALE:
        if keyword in found.header:
            header[keyword] = found.header[keyword]
    if found.primary is not None:
        header.extend(found.primary.copy(strip=True), unique=True, update=False)
    for keyword in WHOLE:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    for version in ("", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        if f"CRPIX2{version}" in header:
            header[f"CRPIX2{version}"] -= rows[0]
    if "LTV2" in header:
        header["LTV2"] -= rows[0]
    return header


def _images(
    wanted: Wanted,
    band: Band,
    folder: Path,
    settings: FetchConfig,
    headers: Mapping[str, str] | None,
) -> dict[Peer, Place]:
    """Where the pixels of all images of a tile are, which have the same sides."""

    def read(address: str, first: int, count: int) -> bytes:
        span = (first, first + count - 1)
        is_served = wanted.from_service
        return ask(address, folder, settings, headers, span=span, from_service=is_served)

    try:
        found = {peer: find_image(partial(read, peer[0]), peer[1]) for peer in band.peers}
    except (KeyError, ValueError, TypeError, fits.VerifyError) as error:
        raise NotPlain(f"a header is not to the standard ({error})") from None
    if len({(image.header["NAXIS1"], image.header["NAXIS2"]) for image in found.values()}) > 1:
        raise NotPlain("its planes have other sides")
    return found


def _header(read: Callable[[int, int], bytes], offset: int) -> tuple[fits.Header, int]:
    """A header, and where its data begin."""
    text = b""
    while (end := _end(text)) is None:
        if len(text) >= LONGEST_HEADER:
            raise NotPlain("no FITS header ends")
        piece = read(offset + len(text), LOOK)
        text += piece
        if not text.startswith((b"SIMPLE  =", b"XTENSION=")):
            raise NotPlain("no plain FITS")
        if len(piece) < LOOK and _end(text) is None:
            raise NotPlain("its header is cut short")
    return fits.Header.fromstring(text[:end].decode("ascii", "replace")), offset + end


def _end(text: bytes) -> int | None:
    """Bytes of the header that a text begins with; None where it goes on."""
    for start in range(0, len(text) - BLOCK + 1, BLOCK):
        cards = [text[start + k : start + k + 8] for k in range(0, BLOCK, 80)]
        if b"END     " in cards:
            return start + BLOCK
    return None


def _data_bytes(header: fits.Header) -> int:
    sides = [header[f"NAXIS{k + 1}"] for k in range(header.get("NAXIS", 0))]
    if not sides:
        return 0
    count = header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + prod(sides))
    return abs(header["BITPIX"]) // 8 * count


def _padded(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def _row_bytes(header: fits.Header) -> int:
    return header["NAXIS1"] * abs(header["BITPIX"]) // 8


def _worth(header: fits.Header, band: Band) -> tuple[int, int] | None:
    """The rows, where they are few enough to be worth it."""
    rows = band.rows(header)
    if rows is None or rows[1] - rows[0] >= WORTH * header["NAXIS2"]:
        return None
    return rows


def _span(found: Place, rows: tuple[int, int]) -> tuple[int, int]:
    """The first and the last byte of a band."""
    width = _row_bytes(found.header)
    return found.data + rows[0] * width, found.data + rows[1] * width - 1


def _keep(
    wanted: Wanted,
    part: Part,
    found: Place,
    rows: tuple[int, int],
    verify: Verify,
) -> dict[str, Any]:
    """Write the band as a file beside the part, verify it, and give it its name."""
    temporary = part.path.with_suffix(".fits")
    with temporary.open("wb") as file, part.path.open("rb") as pixels:
        file.write(band_header(found, rows).tostring().encode("ascii"))
        shutil.copyfileobj(pixels, file)
        file.write(b"\0" * (-file.tell() % BLOCK))
    read = digest_of(temporary)
    verify(temporary, read)
    digest = read.sha256
    name = cache_name(wanted.survey, digest, f"{file_name(wanted.address)}.rows.fits")
    size = temporary.stat().st_size
    saved = _padded(_data_bytes(found.header)) - part.size
    entry = {"file": name, "bytes": size, "sha256": digest, "hdu": 0, "saved": saved}
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    final = cache_folder() / name
    final.parent.mkdir(parents=True, exist_ok=True)
    add_note(part.notes, entry)
    os.replace(temporary, final)
    part.path.unlink()
    return entry
