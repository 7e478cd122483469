"""Files that are packed as a whole (.gz, .bz2, .xz): read as streams, from their beginning on."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path

from jaisp.errors import TileError

# By the names that astropy has for them. It unpacks others (zip) whole when it opens them.
OPENERS: dict[str, Callable[[Path], BufferedIOBase]] = {
    "gzip": gzip.GzipFile,
    "bzip2": bz2.BZ2File,
    "lzma": lzma.LZMAFile,
}
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)
BLOCK = 2**22


def unpacked_length(path: Path, packing: str) -> int:
    """Bytes of a file when unpacked; reading it to its end verifies its checksum too.

    Raises TileError when it can't be unpacked.
    """
    length = 0
    try:
        with OPENERS[packing](path) as file:
            while block := file.read(BLOCK):
                length += len(block)
    except BROKEN as error:
        raise TileError(f"{path.name} can't be unpacked: {error}") from None
    return length


def skip(file: BufferedIOBase, count: int) -> None:
    """Read on, keeping nothing."""
    while count > 0:
        block = file.read(min(count, BLOCK))
        if not block:
            raise EOFError("the file ends early")
        count -= len(block)
