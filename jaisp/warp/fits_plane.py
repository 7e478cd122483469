"""Reading one plane of a tile from FITS, whatever form it has there (FITS standard 4.0)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import FITSFixedWarning

from jaisp.archives.tile import Plane
from jaisp.errors import TileError

# A compressed plane up to this size is unpacked once and kept: neighbouring patches share its
# compression blocks. Larger ones are unpacked block by block, each time anew.
LARGEST_UNPACKED_BYTES = 2**29


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

    Attributes
    ----------
    header: of its HDU.
    shape: rows and columns.

    Raises TileError for a missing file or HDU, an HDU without an image, a cube without `slice`.
    """

    def __init__(self, hdus: fits.HDUList, plane: Plane) -> None:
        self.name = f"{Path(plane.path).name}[{plane.hdu}]"
        with reading(self.name):
            self._hdu = _find(hdus, plane)
            self.header: fits.Header = self._hdu.header.copy()
            shape = self._hdu.shape
        if len(shape) < 2:
            raise TileError(f"{self.name}: holds no image; images are in {_images(hdus)}")
        self.shape: tuple[int, int] = shape[-2:]
        self._leading = _leading_index(shape[:-2], plane.slice, self.name)
        self._unpacked: np.ndarray | None = None
        scaled = any(key in self.header for key in ("BSCALE", "BZERO", "BLANK"))
        packed = isinstance(self._hdu, fits.CompImageHDU) or _is_packed_file(hdus)
        size = self.shape[0] * self.shape[1] * abs(self.header["BITPIX"]) // 8
        self._keep = packed and size <= LARGEST_UNPACKED_BYTES
        self._mapped = None if packed or scaled else self._map(Path(plane.path), shape)

    def section(self, rows: slice, columns: slice) -> np.ndarray:
        """A part of the image in this machine's byte order, scaled, blanks as NaN."""
        with reading(self.name):
            if self._keep:
                if self._unpacked is None:
                    self._unpacked = _native(self._hdu.section[(*self._leading, ...)])
                return self._unpacked[rows, columns]
            if self._mapped is not None:
                return _native(self._mapped[self._leading][rows, columns])
            return _native(self._hdu.section[(*self._leading, rows, columns)])

    def forget(self) -> None:
        """Let go of what was unpacked."""
        self._unpacked = None
        self._mapped = None

    def _map(self, path: Path, shape: tuple[int, ...]) -> np.memmap:
        """The pixels as they lie in the file: a part is read 20 times faster than by astropy."""
        with reading(self.name):
            dtype = fits.hdu.BITPIX2DTYPE[self.header["BITPIX"]]
            start = self._hdu.fileinfo()["datLoc"]
            return np.memmap(path, np.dtype(dtype).newbyteorder(">"), "r", start, shape)


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
    try:
        return hdus[plane.hdu]
    except (KeyError, IndexError):
        raise TileError(
            f"{Path(plane.path).name}: has no HDU {plane.hdu!r}; images are in {_images(hdus)}"
        ) from None


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


def _is_packed_file(hdus: fits.HDUList) -> bool:
    return hdus._file is not None and bool(hdus._file.compression)


def _native(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
