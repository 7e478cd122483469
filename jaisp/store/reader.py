"""Reading a published patch store: `jaisp.open`.

Nothing is read before it is asked for, and reading a patch reads only its own chunks. A store can
be handed to worker processes: each opens its files itself. Start workers by "forkserver" or
"spawn": tensorstore, which reads the planes, does not survive a fork.
"""

import multiprocessing
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr
from astropy.wcs import WCS
from jaxtyping import Float32, Int, UInt8

from jaisp.errors import UserError, reason
from jaisp.files import read_json
from jaisp.sky import SPLITS, Cell, patch_wcs
from jaisp.store.codes import decode_flux, decode_noise
from jaisp.store.index import Index
from jaisp.store.layout import BAND_TABLES, PLANES

REDO = "make it again (`snakemake -R warp_batch`)"


def open_store(path: Path | str) -> "Store":
    """Open the published patch store at `path`.

    Raises UserError when there is none, or one that has not been published.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; a store is made by `snakemake publish`")
    try:
        attributes = read_json(path / "zarr.json")["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        attributes = {}
    if attributes.get("published") is not True:
        raise UserError(
            f"{path}: not a published patch store, or one still being made; run `snakemake publish`"
        )
    return Store(path, attributes)


class Store:
    """A published patch store: `store[17]` or `store["field/17"]` is a `Patch`.

    Attributes
    ----------
    path: the folder.
    surveys, cells: names, sorted.
    patch_arcsec, token_arcsec: side of a patch and of a token.
    index: where every patch lies, sorted by cell and row; a patch's number is its place in it.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path.absolute()
        self.surveys: list[str] = sorted(attributes["surveys"])
        self.cells: list[str] = sorted(attributes["cells"])
        self.patch_arcsec: float = attributes["patch_arcsec"]
        self.token_arcsec: float = attributes["token_arcsec"]
        self.run: str = attributes["run"]
        self._surveys: dict[str, dict[str, Any]] = attributes["surveys"]
        self._planes: dict[str, dict[str, float]] = attributes["cells"]
        self._groups: dict[tuple[str, str], _Group] = {}
        self.index = Index(self.path / "index", self.cells)

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay behind; the index travels, so that workers need not read it again.
        return {**self.__dict__, "_groups": {}}

    def __repr__(self) -> str:
        counts = np.bincount(self.index.split, minlength=len(SPLITS))
        lines = [
            f"Store {self.path}",
            f"  {len(self)} patches of {self.patch_arcsec:g}″ in {len(self.cells)} cell(s): "
            + ", ".join(f"{counts[number]} {name}" for name, number in SPLITS.items()),
        ]
        for survey in self.surveys:
            bands = " ".join(self.bands(survey))
            lines.append(f"  {survey}: {bands} at {self.grid_arcsec(survey):g}″ a pixel")
        return "\n".join(lines)

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator["Patch"]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, key: int | str) -> "Patch":
        """A patch by number (negative from the end) or by stable name, `CELL/ROW`.

        Raises IndexError for a number and KeyError for a name that the store doesn't hold.
        """
        number = self._number(key) if isinstance(key, str) else operator.index(key)
        if not -len(self) <= number < len(self):
            raise IndexError(f"patch {number}: the store holds {len(self)} patches")
        return Patch(self, number % len(self))

    def where(self, split: str | None) -> Int[np.ndarray, " patch"]:
        """Numbers of the patches in a split: train, validation, test or none; None for all."""
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise KeyError(f"no split {split!r}; the splits are {', '.join(SPLITS)}")
        return np.flatnonzero(self.index.split == SPLITS[split])

    def bands(self, survey: str) -> list[str]:
        """The survey's bands, in the order of the arrays."""
        return list(self._about(survey)["bands"])

    def grid_arcsec(self, survey: str) -> float:
        """Size of a pixel of the survey's patches."""
        return self._about(survey)["grid_arcsec"]

    def pixels_per_token(self, survey: str) -> int:
        """Pixels along a token's side."""
        return self._about(survey)["pixels_per_token"]

    def coverage(self, survey: str) -> Float32[np.ndarray, "patch band"]:
        """Fraction of valid pixels of every patch of the store, in the order of the index."""
        return self.table("coverage", survey)

    def table(self, name: str, survey: str) -> Float32[np.ndarray, "patch band"]:
        """One of `jaisp.store.layout.BAND_TABLES` for every patch, in the order of the index."""
        self._about(survey)
        return np.concatenate([self._table(name, cell, survey) for cell in self.cells])

    def cell(self, name: str) -> Cell:
        """A cell: its tangent point and its patches' centres."""
        rows = self._rows(name)
        centres = np.stack([self.index.part("x", *rows), self.index.part("y", *rows)], axis=1)
        plane = self._planes[name]
        return Cell(name, plane["ra"], plane["dec"], self.patch_arcsec, centres)

    def numbers(self, cell: str) -> Int[np.ndarray, " patch"]:
        """Numbers of the patches of a cell."""
        return np.arange(*self._rows(cell))

    def attributes(self, cell: str, survey: str) -> dict[str, Any]:
        """What warping kept about a cell in a survey: tiles, zero points, hash…"""
        return self.group(cell, survey).attributes

    def noise_correlation(self, cell: str, survey: str) -> Float32[np.ndarray, "band 2"]:
        """Measured over white-noise scatter in apertures of 1 and 3 arcsec across."""
        return self.group(cell, survey).noise_correlation

    def group(self, cell: str, survey: str) -> "_Group":
        """The arrays of a cell in a survey, opened once a process."""
        if (cell, survey) not in self._groups:
            self._about(survey)
            self._rows(cell)
            self._groups[cell, survey] = _Group(self.path / cell / survey)
        return self._groups[cell, survey]

    def close(self, cell: str) -> None:
        """Forget a cell's open arrays: whoever goes over many cells has done with it."""
        for survey in self.surveys:
            self._groups.pop((cell, survey), None)

    def _table(self, name: str, cell: str, survey: str) -> Float32[np.ndarray, "row band"]:
        if (cell, survey) in self._groups:
            return self._groups[cell, survey].tables[name]
        # Of one table of every cell, no group is opened and kept.
        path = self.path / cell / survey / name
        with damage_told(path):
            return open_array(path).read().result()

    def _about(self, survey: str) -> dict[str, Any]:
        if survey not in self._surveys:
            raise KeyError(f"no survey {survey!r}; the store holds {', '.join(self.surveys)}")
        return self._surveys[survey]

    def _rows(self, cell: str) -> tuple[int, int]:
        """First and last + 1 patch number of a cell."""
        if cell not in self._planes:
            raise KeyError(f"no cell {cell!r}; the store holds {', '.join(self.cells[:5])}…")
        return self.index.rows(cell)

    def _number(self, name: str) -> int:
        cell, _, row = name.rpartition("/")
        start, stop = self._rows(cell)
        if not row.isdecimal() or int(row) >= stop - start:
            raise KeyError(f"no patch {name!r}; {cell} has rows 0 to {stop - start - 1}")
        return start + int(row)


@dataclass(frozen=True, eq=False)
class Patch:
    """A square of sky in every survey: `"rubin" in patch`, `patch["rubin"].flux`."""

    store: Store = field(repr=False)
    number: int

    def __repr__(self) -> str:
        return (
            f"Patch {self.number} {self.name} at {self.ra:.5f} {self.dec:+.5f} "
            f"({self.split}): {', '.join(self.surveys) or 'not covered'}"
        )

    @property
    def name(self) -> str:
        """The stable name, `CELL/ROW`."""
        return f"{self.cell}/{self.row}"

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return self.store.index.cell_of(self.number)

    @property
    def row(self) -> int:
        """Row in the cell's groups."""
        return int(self.store.index.at("row", self.number))

    @property
    def ra(self) -> float:
        """Right ascension of the centre, degrees."""
        return float(self.store.index.at("ra", self.number))

    @property
    def dec(self) -> float:
        """Declination of the centre, degrees."""
        return float(self.store.index.at("dec", self.number))

    @property
    def x(self) -> float:
        """Centre on the cell's plane, arcsec towards the west."""
        return float(self.store.index.at("x", self.number))

    @property
    def y(self) -> float:
        """Centre on the cell's plane, arcsec towards the north."""
        return float(self.store.index.at("y", self.number))

    @property
    def split(self) -> str:
        """none, train, validation or test."""
        return list(SPLITS)[int(self.store.index.at("split", self.number))]

    @property
    def surveys(self) -> list[str]:
        """The surveys that cover this patch in at least one band."""
        return [survey for survey in self.store.surveys if survey in self]

    def __contains__(self, survey: str) -> bool:
        if survey not in self.store.surveys:
            return False
        return bool((self.store.group(self.cell, survey).tables["coverage"][self.row] > 0).any())

    def __getitem__(self, survey: str) -> "View":
        """The patch in one survey; KeyError when the survey does not cover it."""
        if survey not in self:
            known = ", ".join(self.surveys) or "no survey"
            raise KeyError(f"{survey!r} does not cover patch {self.name}; {known} does")
        return View(self, survey)


@dataclass(frozen=True, eq=False)
class View:
    """A patch in one survey. Planes are read when first asked for."""

    patch: Patch
    survey: str

    @property
    def bands(self) -> list[str]:
        """Names of the bands, in the order of the arrays."""
        return self.patch.store.bands(self.survey)

    @property
    def grid_arcsec(self) -> float:
        """Size of a pixel."""
        return self.patch.store.grid_arcsec(self.survey)

    @cached_property
    def flux(self) -> Float32[np.ndarray, "band y x"]:
        """Flux in nJy a pixel; NaN where missing."""
        values = self._group.plane("flux", self.patch.row)
        return decode_flux(values, self._table("scale")) if values.dtype == np.int16 else values

    @cached_property
    def noise(self) -> Float32[np.ndarray, "band y x"]:
        """Background noise, 1 sigma in nJy; NaN where invalid."""
        codes = self._group.plane("noise", self.patch.row)
        return decode_noise(codes, self._table("noise_scale"))

    @cached_property
    def mask(self) -> UInt8[np.ndarray, "band y x"]:
        """Bits of `jaisp.store.layout.Flag`."""
        return self._group.plane("mask", self.patch.row)

    @property
    def coverage(self) -> Float32[np.ndarray, " band"]:
        """Fraction of valid pixels."""
        return self._table("coverage")

    @property
    def psf_fwhm_arcsec(self) -> Float32[np.ndarray, " band"]:
        """Full width at half maximum of the PSF; NaN where unknown."""
        return self._table("psf_fwhm_arcsec")

    @cached_property
    def psf(self) -> Float32[np.ndarray, "band k k"] | None:
        """PSF stamps on the tile's own pixels, where the archive gave them."""
        return self._group.psf(self.patch.row)

    @cached_property
    def wcs(self) -> WCS:
        """Celestial WCS of the pixels."""
        cell = self.patch.store.cell(self.patch.cell)
        pixels = self._group.attributes["pixels"]
        return patch_wcs(cell, self.patch.row, self.grid_arcsec, pixels)

    @property
    def _group(self) -> "_Group":
        return self.patch.store.group(self.patch.cell, self.survey)

    def _table(self, name: str) -> Float32[np.ndarray, " band"]:
        return self._group.tables[name][self.patch.row]


class _Group:
    """The open arrays of one cell in one survey."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage_told(path):
            group = zarr.open_group(path, mode="r")
            arrays = dict(group.arrays())
            self.attributes: dict[str, Any] = dict(group.attrs)
            self.tables = {name: np.asarray(arrays[name][...]) for name in BAND_TABLES}
            self.noise_correlation = np.asarray(arrays["noise_correlation"][...])
            _check_shards(path, self.tables["coverage"], {n: arrays[n].shards for n in PLANES})
        self._psf = arrays.get("psf")
        self._planes: dict[str, tensorstore.TensorStore] = {}

    def array(self, name: str) -> tensorstore.TensorStore:
        """A plane's array [row, band, y, x], opened once."""
        if name not in self._planes:
            with damage_told(self.path / name):
                self._planes[name] = open_array(self.path / name)
        return self._planes[name]

    def plane(self, name: str, rows: int | slice) -> np.ndarray:
        """Codes of a plane, [band, y, x] of one row or [row, band, y, x] of a slice."""
        with damage_told(self.path / name):
            return self.array(name)[rows].read().result()

    def begin(self, name: str, region: Any, into: np.ndarray) -> tensorstore.WriteFutures:
        """Begin to read a region of a plane, [band, y, x] of one row, into an array."""
        target = tensorstore.array(into, context=reading_context(), copy=False, write=True)
        return target.write(self.array(name)[region])

    def psf(self, row: int) -> np.ndarray | None:
        """PSF stamps of a row."""
        with damage_told(self.path / "psf"):
            return None if self._psf is None else np.asarray(self._psf[row])


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Read what lies at `path` of a published store here: what has been damaged or removed since is
    a UserError, in one line that names it and says how to make it again."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the bytes make zarr, zstd, crc32c or tensorstore say
        raise UserError(
            f"{path}: damaged or removed since the store was published ({reason(error)}); {REDO}"
        ) from None


def _check_shards(
    path: Path, coverage: Float32[np.ndarray, "patch band"], shards: dict[str, tuple | None]
) -> None:
    """Whether the files of all covered patches are there: Zarr takes one that is gone for patches
    without data."""
    covered = np.flatnonzero((coverage > 0).any(axis=1))
    for name, shape in shards.items():
        assert shape is not None
        for shard in np.unique(covered // shape[0]):
            file = path / name / "c" / str(shard) / "0" / "0" / "0"
            if not file.is_file():
                raise UserError(f"{file}: removed since the store was published; {REDO}")


def open_array(path: Path) -> tensorstore.TensorStore:
    """Open one array for fast reading: tensorstore decodes shards about five times as fast."""
    location = {"driver": "file", "path": str(path.absolute())}
    return tensorstore.open(
        {"driver": "zarr3", "kvstore": location}, read=True, context=reading_context()
    ).result()


@cache
def reading_context() -> tensorstore.Context:
    """What all arrays of a process share: threads and cache.

    A worker process decodes in one thread, for there are others like it; waiting for a disk is
    no work, and as many reads are under way as anywhere. Nothing is cached: the operating system
    keeps what was read, and of patches in random order few come twice before they are dropped.
    """
    worker = multiprocessing.parent_process() is not None
    return tensorstore.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "data_copy_concurrency": {"limit": 1 if worker else "shared"},
            "file_io_concurrency": {"limit": 32},
        }
    )
