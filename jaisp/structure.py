"""Whether a FITS file is whole: its structure, and its own checksums, where it carries them."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, RawIOBase
from math import prod
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning, AstropyWarning

from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.packed import OPENERS, packing_of, unpacked_length

# What no FITS file begins with: pages that say sorry.
PAGES = (b"<", b"{")
PIECE = 256 << 10  # bytes read at a time: what a core's own cache holds
FILLING = b"\0 \r\n"
ONES = 0xFFFFFFFF
MOST_BYTES = FetchConfig().most_bytes

_verifying = threading.Lock()  # warnings are filtered for all threads at once


def verify_structure(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """The file is FITS, whole, and its own checksums, where it carries them, hold.

    most_bytes: what its pixels may be at most, unpacked. Raises TileError.
    """
    with path.open("rb") as handle:
        if handle.read(1) in PAGES:
            raise TileError(f"{path.name} is a page of text, no FITS file")
    packing = packing_of(path)
    # Before anything looks into it: a small file may hold more than any disk does.
    length = unpacked_length(path, packing, most_bytes) if packing else path.stat().st_size
    # As the bytes lie: checksums are of packed pixels, and none is unpacked to be counted.
    with opened(path, lazy_load_hdus=False, disable_image_compression=True) as hdus:
        found = [(hdu.header, hdu.fileinfo()) for hdu in hdus]
        for hdu in hdus:
            hdu.verify("exception")
    end = found[-1][1]["datLoc"] + found[-1][1]["datSpan"]
    if end > length or not _is_filling(path, packing, end):
        raise TileError(f"{path.name} is truncated")
    _check_pixels(path, [header for header, _ in found], most_bytes)
    if any(_has_sums(header) for header, _ in found):
        with OPENERS[packing](path) if packing else path.open("rb", buffering=0) as file:
            _check_sums(path, file, found)


@contextmanager
def opened(path: Path, **options: bool) -> Iterator[fits.HDUList]:
    """Open a FITS file; whatever astropy finds wrong with it becomes a TileError."""
    try:
        with _verifying, warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
            # Our own handle: astropy leaves its open when a file turns out not to be FITS.
            with path.open("rb") as handle, fits.open(handle, **options) as hdus:
                yield hdus
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        ImportError,  # astropy's, for a packing that it needs another package for
        fits.VerifyError,
        AstropyUserWarning,
    ) as error:
        raise TileError(f"{path.name}: {' '.join(str(error).split())}") from None


def _is_filling(path: Path, packing: str | None, end: int) -> bool:
    """Whether nothing follows the last HDU but filling; astropy overlooks a header that is cut."""
    with OPENERS[packing](path) if packing else path.open("rb") as file:
        file.seek(end)
        while piece := file.read(PIECE):
            if piece.strip(FILLING):
                return False
    return True


def _check_pixels(path: Path, headers: list[fits.Header], most_bytes: int) -> None:
    """Packed pixels that no memory could hold: a few bytes may stand for any number of them."""
    for number, header in enumerate(headers):
        if header.get("ZIMAGE") is not True:
            continue
        count, bits = header.get("ZNAXIS"), header.get("ZBITPIX")
        sides = [
            header.get(f"ZNAXIS{k + 1}") for k in range(count if isinstance(count, int) else 0)
        ]
        if not all(isinstance(number, int) for number in (count, bits, *sides)):
            raise TileError(f"{path.name}[{number}]: ZBITPIX or ZNAXISn is no number")
        if prod(sides) * abs(bits) // 8 > most_bytes:
            raise TileError(
                f"{path.name}[{number}] unpacks to {' × '.join(map(str, sides))} pixels, more than "
                "fetch.most_bytes; refused"
            )


def _has_sums(header: fits.Header) -> bool:
    return any(str(header.get(key, "")).strip() for key in ("CHECKSUM", "DATASUM"))


def _check_sums(
    path: Path, file: BufferedIOBase | RawIOBase, found: list[tuple[fits.Header, dict]]
) -> None:
    """Hold every HDU against its sums, reading the file once.

    astropy does it too, but reads the data twice, and all of what is packed into memory.
    """
    piece = bytearray(PIECE)
    for number, (header, place) in enumerate(found):
        name = f"{path.name}[{header.get('EXTNAME', number)}]"
        of_header = _sum(file, place["datLoc"] - place["hdrLoc"], piece)
        of_data = _sum(file, place["datSpan"], piece)
        told = str(header.get("DATASUM", "")).strip()
        if told and not (told.isdecimal() and int(told) % ONES == of_data % ONES):
            raise TileError(f"{name}: DATASUM verification failed")
        # CHECKSUM is chosen such that all words of the HDU sum to ones.
        if str(header.get("CHECKSUM", "")).strip() and (of_header + of_data) % ONES:
            raise TileError(f"{name}: CHECKSUM verification failed")


def _sum(file: BufferedIOBase | RawIOBase, count: int, piece: bytearray) -> int:
    """The sum of the next `count` bytes as 32-bit words, the most significant byte first.

    piece: room for some of them; its length is a multiple of 4, as `count` is in a FITS file.
    """
    total = filled = 0
    while count > 0:
        with memoryview(piece) as room:
            got = file.readinto(room[filled : min(count, len(piece))])
        if not got:
            raise EOFError
        filled += got
        if filled % 4 == 0:
            total += int(np.frombuffer(piece, ">u4", filled // 4).sum(dtype=np.uint64))
            count -= filled
            filled = 0
    return total
