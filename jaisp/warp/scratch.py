"""Room for unpacked pixels: in memory up to a limit, beyond it in a file without a name.

Such a file vanishes with its process, however that ends. It is read through short-lived maps, so
that no more of it counts as the process's memory than what was asked for.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

MEMORY_BYTES = 2**29


class Pixels(Protocol):
    """A plane, or a part of one, that is read in parts."""

    def section(self, rows: slice, columns: slice) -> np.ndarray:
        """A part of it, in any byte order."""
        ...


@dataclass(frozen=True)
class FilePixels:
    """Pixels that lie row by row in an open file from the byte `start` on."""

    file: IO[bytes]
    start: int
    shape: tuple[int, int]
    dtype: np.dtype

    def section(self, rows: slice, columns: slice) -> np.ndarray:
        """A copy of a part."""
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return np.empty(
                (max(rows.stop - rows.start, 0), max(columns.stop - columns.start, 0)), self.dtype
            )
        first = self.start + rows.start * self.shape[1] * self.dtype.itemsize
        shape = (rows.stop - rows.start, self.shape[1])
        return np.array(np.memmap(self.file, self.dtype, "r", first, shape)[:, columns])


class Scratch:
    """Hands out room for planes, and takes it back.

    Parameters
    ----------
    folder: where files go when memory is used up; None: where the system keeps temporary files.
    memory_bytes: how much of all that is held at once may be in memory.
    """

    def __init__(self, folder: Path | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder, self._left = folder, memory_bytes

    def room(self, shape: tuple[int, int], dtype: np.dtype) -> "Room":
        """Room for a plane of this shape, in this machine's byte order."""
        size = shape[0] * shape[1] * dtype.itemsize
        if size <= self._left:
            self._left -= size
            return Room(self, np.empty(shape, dtype), None, size)
        file = tempfile.TemporaryFile(dir=self._folder, prefix="unpacked-")  # noqa: SIM115
        return Room(self, FilePixels(file, 0, shape, dtype), file, 0)

    def take_back(self, size: int) -> None:
        """Memory of that many bytes is free again."""
        self._left += size


class Room:
    """Room for one plane: filled row after row, read in parts, closed when done with."""

    def __init__(
        self, scratch: Scratch, pixels: np.ndarray | FilePixels, file: IO[bytes] | None, size: int
    ) -> None:
        self._scratch, self._pixels, self._file, self._size = scratch, pixels, file, size
        self._filled = 0

    def append(self, values: np.ndarray) -> None:
        """The next rows."""
        if isinstance(self._pixels, np.ndarray):
            self._pixels[self._filled : self._filled + len(values)] = values
        else:
            assert self._file is not None
            self._file.write(np.ascontiguousarray(values, self._pixels.dtype).data)
            self._file.flush()
        self._filled += len(values)

    def section(self, rows: slice, columns: slice) -> np.ndarray:
        """A part; of memory a view."""
        if isinstance(self._pixels, np.ndarray):
            return self._pixels[rows, columns]
        return self._pixels.section(rows, columns)

    def close(self) -> None:
        """Give the room back."""
        if self._file is not None:
            self._file.close()
        self._scratch.take_back(self._size)
        self._size, self._pixels = 0, np.empty((0, 0))
