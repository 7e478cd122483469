"""Whether a FITS file is whole: its structure, and its own checksums, where it carries them."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning, AstropyWarning

from jaisp.config.fetch import FetchConfig
from jaisp.digest import ONES, Sums
from jaisp.errors import TileError
from jaisp.headers import HDU, plain_hdus
from jaisp.packed import OPENERS, packing_of, unpacked_length

# What no FITS file begins with: pages that say sorry.
PAGES = (b"<", b"{")
PIECE = 256 << 10  # bytes read at a time: what a core's own cache holds
MOST_HEADERS = 64 << 20  # bytes of all headers of a file, which astropy keeps in memory
FILLING = b"\0 \r\n"
MOST_BYTES = FetchConfig().most_bytes

_verifying = threading.Lock()  # warnings are filtered for all threads at once


def verify_structure(path: Path, sums: Sums | None = None, most_bytes: int = MOST_BYTES) -> None:
    """The file is FITS, whole, and its own checksums, where it carries them, hold.

    sums: of the file as it lies, where it has been read already. most_bytes: what its pixels may be
    at most, unpacked. Raises TileError.
    """
    with path.open("rb") as handle:
        if handle.read(1) in PAGES:
            raise TileError(f"{path.name} is a page of text, no FITS file")
        found = plain_hdus(handle, path.stat().st_size)
    packing = None if found else packing_of(path)
    if not found:
        found = _hdus(path, packing, most_bytes)
    if any(_has_sums(hdu.header) for hdu in found):
        if sums is None or packing:
            sums = Sums()
            with OPENERS[packing](path) if packing else path.open("rb", buffering=0) as file:
                sums.read(file)
        _check_sums(path, sums, found)


def _hdus(path: Path, packing: str | None, most_bytes: int) -> list[HDU]:
    """What astropy finds in a file, and finds to be to the standard."""
    # Before anything looks into it: a small file may hold more than any disk does.
    length = unpacked_length(path, packing, most_bytes) if packing else path.stat().st_size
    # As the bytes lie: checksums are of packed pixels, and none is unpacked to be counted.
    options = {"lazy_load_hdus": False, "disable_image_compression": True}
    with (
        OPENERS[packing](path) if packing else path.open("rb") as file,
        opened(path, Headers(path.name, file, length), **options) as hdus,
    ):
        found = []
        for hdu in hdus:
            place = hdu.fileinfo()
            end = place["datLoc"] + place["datSpan"]
            found.append(HDU(hdu.header, place["hdrLoc"], place["datLoc"], end))
        for hdu in hdus:
            hdu.verify("exception")
    if found[-1].end > length or not _is_filling(path, packing, found[-1].end):
        raise TileError(f"{path.name} is truncated")
    _check_pixels(path, [hdu.header for hdu in found], most_bytes)
    return found


class Headers:
    """A file of which headers alone are to be read, and no more of these than memory holds: where
    one has no end astropy would read on to the file's.

    length: bytes of the file, as it is read.
    """

    def __init__(self, name: str, file: BufferedIOBase, length: int) -> None:
        self._name, self._file, self._length = name, file, length
        self._place = self._come = 0

    def read(self, size: int = -1) -> bytes:
        """The bytes that come next. Raises TileError where these are too many in all."""
        self._come += self._length if size < 0 else size
        if self._come > MOST_HEADERS:
            raise TileError(f"{self._name}: headers of more than {MOST_HEADERS >> 20} MiB; refused")
        self._file.seek(self._place)
        piece = self._file.read(size)
        self._place += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go somewhere; nothing of what is packed is unpacked for it."""
        self._place = offset + (0, self._place, self._length)[whence]
        return self._place

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place


@contextmanager
def opened(path: Path, file: Headers | None = None, **options: bool) -> Iterator[fits.HDUList]:
    """Open a FITS file; whatever astropy finds wrong with it becomes a TileError.

    file: what is read in its place.
    """
    try:
        with _verifying, warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
            # Our own handle: astropy leaves its open when a file turns out not to be FITS.
            with path.open("rb") as handle, fits.open(file or handle, **options) as hdus:
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


def _check_pixels(path: Path, headers: list[Any], most_bytes: int) -> None:
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


def _has_sums(header: Mapping[str, Any]) -> bool:
    return any(_text(header, key) for key in ("CHECKSUM", "DATASUM"))


def _text(header: Mapping[str, Any], key: str) -> str:
    return str(header.get(key, "")).strip("' ")


def _check_sums(path: Path, sums: Sums, found: list[HDU]) -> None:
    """Hold every HDU against its sums.

    astropy does it too, but reads the data twice, and all of what is packed into memory.
    """
    for number, (header, start, data, end) in enumerate(found):
        name = f"{path.name}[{_text(header, 'EXTNAME') or number}]"
        told = _text(header, "DATASUM")
        if told and not (told.isdecimal() and int(told) % ONES == sums.of(data, end)):
            raise TileError(f"{name}: DATASUM verification failed")
        # CHECKSUM is chosen such that all words of the HDU sum to ones.
        if _text(header, "CHECKSUM") and sums.of(start, end):
            raise TileError(f"{name}: CHECKSUM verification failed")
