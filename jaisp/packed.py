"""Files that are packed as a whole (.gz, .bz2, .xz, .zip): read as streams, from their beginning
on."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from jaisp.errors import TileError


def _open_zip(path: Path) -> BufferedIOBase:
    """The one file of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise OSError(f"{len(names)} files in it, not one")
        return cast(BufferedIOBase, archive.open(names[0]))


# By the names that astropy has for them.
OPENERS: dict[str, Callable[[Path], BufferedIOBase]] = {
    "gzip": gzip.GzipFile,
    "bzip2": bz2.BZ2File,
    "lzma": lzma.LZMAFile,
    "zip": _open_zip,
}
# What each begins with.
SIGNS = {b"\x1f\x8b\x08": "gzip", b"BZ": "bzip2", b"\xfd7zXZ\x00": "lzma", b"PK\x03\x04": "zip"}
BROKEN = (EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
BLOCK = 2**22
CARD = 80


def packing_of(path: Path) -> str | None:
    """How a file is packed as a whole; None where it isn't."""
    with path.open("rb") as file:
        first = file.read(max(map(len, SIGNS)))
    return next((name for sign, name in SIGNS.items() if first.startswith(sign)), None)


def unpacked_length(path: Path, packing: str, most_bytes: int) -> int:
    """Bytes of a FITS file when unpacked; reading it to its end verifies its checksum too.

    Raises TileError when it can't be unpacked, has no FITS header within its first megabytes, which
    are all that is looked at for one, or more than `most_bytes`.
    """
    length = 0
    try:
        with OPENERS[packing](path) as file:
            while block := file.read(BLOCK):
                if not length and not _begins_with_header(block):
                    raise TileError(f"{path.name}: what is packed in it is no FITS file")
                length += len(block)
                if length > most_bytes:
                    raise TileError(
                        f"{path.name} unpacks to more than fetch.most_bytes ({most_bytes}); refused"
                    )
    except BROKEN as error:
        raise TileError(f"{path.name} can't be unpacked: {error}") from None
    return length


def _begins_with_header(block: bytes) -> bool:
    """Whether a header begins here, and ends: of one without an end all would be kept in memory."""
    cards = (block[k : k + 8] for k in range(0, len(block), CARD))
    return block.startswith(b"SIMPLE") and any(card == b"END     " for card in cards)


def skip(file: BufferedIOBase, count: int) -> None:
    """Read on, keeping nothing."""
    while count > 0:
        block = file.read(min(count, BLOCK))
        if not block:
            raise EOFError("the file ends early")
        count -= len(block)
