"""Reading one plane of a tile from FITS, whatever form it has there (FITS standard 4.0)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import FITSFixedWarning

from jaisp.archives.tile import Plane
from jaisp.errors import TileError
from jaisp.packed import OPENERS, skip
from jaisp.warp.scratch import FilePixels, Room, Scratch

POGSON = 2.5 / np.log(10)
# Packed planes are unpacked in strips of about this size.
STRIP_BYTES = 2**24


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Read FITS here: known oddities pass, a truncated or damaged file is a TileError.

    The oddities are headers that astropy and WCSLIB mend: old keywords such as RADECSYS or EPOCH,
    dates without a time, CD beside PC, cards that are not quite to the standard.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FITSFixedWarning)
        warnings.filterwarnings("ignore", category=VerifyWarning)
        warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
        try:
            yield
        except (TileError, MemoryError):
            raise
        except Exception as error:  # the decoders fail in every way on damaged data
            raise TileError(f"{name}: can't be read ({' '.join(str(error).split())})") from None


class FitsPlane:
    """One 2-D image inside a file: an image HDU, a compressed one, or one plane of a cube.

    Plain pixels are read from where they lie. Those of a compressed HDU or of a packed file
    (.gz) are unpacked once, when first asked for: of the part that is `needed` alone.

    Attributes
    ----------
    header: of its HDU.
    shape: rows and columns.

    Raises TileError for a missing file or HDU, an HDU without an image, a cube without `slice`.
    """

    def __init__(self, hdus: fits.HDUList, plane: Plane, scratch: Scratch) -> None:
        self.name = f"{Path(plane.path).name}[{plane.hdu}]"
        with reading(self.name):
            self._hdu = _find(hdus, plane)
            self.header: fits.Header = self._hdu.header
            shape = self._hdu.shape
        if len(shape) < 2:
            raise TileError(f"{self.name}: holds no image; images are in {_images(hdus)}")
        self.shape: tuple[int, int] = shape[-2:]
        self._leading = _leading_index(shape[:-2], plane.slice, self.name)
        self._scratch = scratch
        self._needed = slice(0, self.shape[0]), slice(0, self.shape[1])
        self._unpacked: Room | None = None
        compressed = isinstance(self._hdu, fits.CompImageHDU)
        packing = hdus._file.compression if hdus._file is not None else None
        self._packed = compressed or packing is not None
        self._stream = None if compressed else OPENERS.get(packing or "")
        self._path = Path(plane.path)
        self._block_rows = self._hdu.tile_shape[-2] if compressed else 1
        scaled = any(key in self.header for key in ("BSCALE", "BZERO", "BLANK"))
        self._plain = None if self._packed or scaled else self._in_file(hdus._file._file)

    def need(self, rows: slice, columns: slice) -> None:
        """Say which part will be asked for; the rest of a packed plane stays packed."""
        self.forget()
        self._needed = rows, columns

    def section(self, rows: slice, columns: slice) -> np.ndarray:
        """A part of the image in this machine's byte order, scaled, blanks as NaN; what is kept as
        asinh of it is turned back."""
        return _from_asinh(self._stored(rows, columns), self.header, self.name)

    def _stored(self, rows: slice, columns: slice) -> np.ndarray:
        """The numbers as they are kept."""
        with reading(self.name):
            if self._plain is not None:
                return _native(self._plain.section(rows, columns))
            if self._packed and _within((rows, columns), self._needed):
                if self._unpacked is None:
                    self._unpacked = self._unpack()
                return self._unpacked.section(
                    *(
                        slice(part.start - first.start, part.stop - first.start)
                        for part, first in zip((rows, columns), self._needed, strict=True)
                    )
                )
            return _native(self._hdu.section[(*self._leading, rows, columns)])

    def forget(self) -> None:
        """Let go of what was unpacked."""
        if self._unpacked is not None:
            self._unpacked.close()
            self._unpacked = None

    def _unpack(self) -> Room:
        """The part that is needed, strip by strip: no more of it is in memory at once."""
        rows, columns = self._needed
        row_bytes = self.shape[1] * abs(self.header["BITPIX"]) // 8
        # Whole compression blocks, so that each is unpacked once.
        step = max(1, STRIP_BYTES // max(row_bytes * self._block_rows, 1)) * self._block_rows
        edges = [rows.start, *range((rows.start // step + 1) * step, rows.stop, step), rows.stop]
        read = self._streamed if self._stream else self._sections
        room = None
        try:
            for strip in read([slice(a, b) for a, b in pairwise(edges)]):
                part = _native(strip[:, columns])
                if room is None:
                    shape = rows.stop - rows.start, columns.stop - columns.start
                    room = self._scratch.room(shape, part.dtype)
                room.append(part)
        except BaseException:
            if room is not None:
                room.close()
            raise
        assert room is not None
        return room

    def _sections(self, strips: list[slice]) -> Iterator[np.ndarray]:
        """Rows of a compressed HDU."""
        for rows in strips:
            yield self._hdu.section[(*self._leading, rows, slice(0, self.shape[1]))]

    def _streamed(self, strips: list[slice]) -> Iterator[np.ndarray]:
        """Rows of a packed file, from its beginning to the last that is needed."""
        assert self._stream is not None
        row_bytes = self.shape[1] * abs(self.header["BITPIX"]) // 8
        header = self.header.copy()
        header["NAXIS"] = 2
        for axis in range(3, self.header["NAXIS"] + 1):
            del header[f"NAXIS{axis}"]
        with self._stream(self._path) as file:
            skip(file, self._first_byte() + strips[0].start * row_bytes)
            for rows in strips:
                header["NAXIS2"] = rows.stop - rows.start
                pixels = file.read((rows.stop - rows.start) * row_bytes)
                # Astropy scales them, as it would those of the whole.
                yield type(self._hdu).fromstring(header.tostring().encode() + pixels).data

    def _first_byte(self) -> int:
        """Where the plane's pixels begin in the (unpacked) file."""
        leading = self._hdu.shape[:-2]
        plane = int(np.ravel_multi_index(self._leading, leading)) if leading else 0
        size = self.shape[0] * self.shape[1] * abs(self.header["BITPIX"]) // 8
        return self._hdu.fileinfo()["datLoc"] + plane * size

    def _in_file(self, file: IO[bytes]) -> FilePixels:
        """The pixels as they lie in the file: a part is read 20 times faster than by astropy."""
        with reading(self.name):
            dtype = np.dtype(fits.hdu.BITPIX2DTYPE[self.header["BITPIX"]]).newbyteorder(">")
            return FilePixels(file, self._first_byte(), self.shape, dtype)


def open_fits(path: Path | str) -> fits.HDUList:
    """Open a file; its pixels are read when asked for. TileError where that fails."""
    name = Path(path).name
    with reading(name), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hdus = fits.open(path, memmap=False)
    for warning in caught:
        if "truncated" in str(warning.message):
            hdus.close()
            raise TileError(f"{name}: can't be read ({warning.message})")
    return hdus


def _find(hdus: fits.HDUList, plane: Plane) -> Any:
    """The HDU, by number or by name: the first of that name, no HDU after it being read."""
    if isinstance(plane.hdu, str):
        for hdu in hdus:
            if hdu.name == plane.hdu.strip().upper():
                return hdu
    else:
        with suppress(IndexError):
            return hdus[plane.hdu]
    raise TileError(
        f"{Path(plane.path).name}: has no HDU {plane.hdu!r}; images are in {_images(hdus)}"
    )


def _images(hdus: fits.HDUList) -> str:
    found = [f"{i} {hdu.name}".strip() for i, hdu in enumerate(hdus) if hdu.is_image and hdu.shape]
    return ", ".join(found) or "none of its HDUs"


def _leading_index(leading: tuple[int, ...], chosen: int | None, name: str) -> tuple[int, ...]:
    """The index that turns a cube into an image; axes of length one need no choice."""
    real = [length for length in leading if length > 1]
    if len(real) > 1:
        raise TileError(
            f"{name}: has {len(real) + 2} axes longer than one; give a 2-D or 3-D image"
        )
    if real and chosen is None:
        raise TileError(f"{name}: is a cube of {real[0]} planes; choose one with `slice`")
    length = real[0] if real else 1
    if chosen is not None and chosen >= length:
        raise TileError(f"{name}: has {length} planes, `slice` asks for number {chosen}")
    return tuple(chosen or 0 if axis > 1 else 0 for axis in leading)


def _within(part: tuple[slice, slice], whole: tuple[slice, slice]) -> bool:
    return all(a.start >= b.start and a.stop <= b.stop for a, b in zip(part, whole, strict=True))


def _native(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _from_asinh(values: np.ndarray, header: fits.Header, name: str) -> np.ndarray:
    """Fluxes of pixels that are kept as asinh magnitudes, by BOFFSET and BSOFTEN: the stacks of
    Pan-STARRS (Waters et al. 2020, ApJS 251, 4)."""
    if "BSOFTEN" not in header:
        return values
    try:
        offset, soft = float(header["BOFFSET"]), float(header["BSOFTEN"])
    except (KeyError, TypeError, ValueError):
        raise TileError(f"{name}: BSOFTEN without a number, or without BOFFSET") from None
    return (offset + 2 * soft * np.sinh(values.astype(np.float64) / POGSON)).astype(np.float32)
