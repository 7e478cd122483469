"""The index of a published store: where every patch lies, read as far as it is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float64, Int, Int32, Shaped, UInt8

from jaisp.errors import UserError, reason

CHUNK = 2**16  # patches: what is read to know of one
MOST_CHUNKS = 16  # that are kept
REDO = "publish the store again (`snakemake -f publish`)"


class Index:
    """A column is read when it is first asked for; `part` and `at` read only what they give.

    `row` in the cell's groups. `ra`, `dec`: centre, degrees. `x`, `y`: centre, arcsec on the cell's
    plane. `split`: 0 none, 1 train, 2 validation, 3 test. `cell`: names, in the order of `cells`,
    which are the store's, sorted, as the patches are.
    """

    def __init__(self, path: Path, cells: Sequence[str]) -> None:
        self._path = path
        self._cells = list(cells)
        self._number = {name: k for k, name in enumerate(cells)}
        self._arrays: dict[str, zarr.Array] = {}
        self._chunks: dict[tuple[str, int], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay behind; the columns that were read travel.
        return {**self.__dict__, "_arrays": {}, "_chunks": {}}

    def __len__(self) -> int:
        return int(self._array("row").shape[0])

    @cached_property
    def cell(self) -> Shaped[np.ndarray, " patch"]:
        """Name of every patch's cell."""
        return np.repeat(np.array(self._cells), np.diff(self._starts))

    @cached_property
    def row(self) -> Int32[np.ndarray, " patch"]:
        """Row in the cell's groups."""
        return self._whole("row")

    @cached_property
    def ra(self) -> Float64[np.ndarray, " patch"]:
        """Right ascension of the centre, degrees."""
        return self._whole("ra")

    @cached_property
    def dec(self) -> Float64[np.ndarray, " patch"]:
        """Declination of the centre, degrees."""
        return self._whole("dec")

    @cached_property
    def x(self) -> Float64[np.ndarray, " patch"]:
        """Centre on the cell's plane, arcsec towards the west."""
        return self._whole("x")

    @cached_property
    def y(self) -> Float64[np.ndarray, " patch"]:
        """Centre on the cell's plane, arcsec towards the north."""
        return self._whole("y")

    @cached_property
    def split(self) -> UInt8[np.ndarray, " patch"]:
        """0 none, 1 train, 2 validation, 3 test."""
        return self._whole("split")

    def part(self, name: str, start: int, stop: int) -> Shaped[np.ndarray, " patch"]:
        """A column's entries from `start` to before `stop`."""
        if name in self.__dict__:
            return self.__dict__[name][start:stop]
        size = self._array(name).chunks[0]
        pieces = [
            self._chunk(name, k)[max(start - k * size, 0) : stop - k * size]
            for k in range(start // size, (stop - 1) // size + 1)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def at(self, name: str, number: int) -> Any:
        """A column's entry of one patch."""
        return self.part(name, number, number + 1)[0]

    def cell_of(self, number: int) -> str:
        """Name of a patch's cell."""
        return self._cells[int(np.searchsorted(self._starts, number, side="right")) - 1]

    def rows(self, cell: str) -> tuple[int, int]:
        """First and last + 1 number of a cell's patches."""
        place = self._number[cell]
        return int(self._starts[place]), int(self._starts[place + 1])

    @cached_property
    def _starts(self) -> Int[np.ndarray, " cell_and_end"]:
        """The first patch of every cell, and the number of all patches: a cell begins at row 0."""
        size, starts = self._array("row").chunks[0], []
        for first in range(0, len(self), size):
            rows = self.part("row", first, min(first + size, len(self)))
            starts.append(first + np.flatnonzero(rows == 0))
        found = np.concatenate([*starts, [len(self)]])
        if len(found) != len(self._cells) + 1:
            raise UserError(f"{self._path}: damaged; {REDO}")
        return found

    def _whole(self, name: str) -> np.ndarray:
        with self._damage_told():
            return np.asarray(self._array(name)[...])

    def _chunk(self, name: str, number: int) -> np.ndarray:
        if (name, number) not in self._chunks:
            if len(self._chunks) == MOST_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
            array = self._array(name)
            size = array.chunks[0]
            with self._damage_told():
                self._chunks[name, number] = np.asarray(array[number * size : (number + 1) * size])
        return self._chunks[name, number]

    def _array(self, name: str) -> zarr.Array:
        if name not in self._arrays:
            with self._damage_told():
                self._arrays[name] = zarr.open_array(self._path / name, mode="r")
        return self._arrays[name]

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # damaged files fail in as many ways as there are bytes
            raise UserError(f"{self._path}: damaged ({reason(error)}); {REDO}") from None
