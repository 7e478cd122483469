"""Writing one group of the patch store: all patches of one cell in one survey.

Rows come in any order within a shard and shards one after another, so that at most one shard is
in memory and every file is written once, whole. The same input gives the same bytes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tensorstore
import zarr
from jaxtyping import Float32, UInt8

from jaisp.store import layout
from jaisp.store.codes import LARGEST_CODE, STEPS_PER_NOISE
from jaisp.store.encode import encode_flux, encode_noise, is_clipped
from jaisp.store.layout import Flag

LARGE = 256


@dataclass(frozen=True)
class PatchPlanes:
    """One patch of one survey, before it is stored.

    Attributes
    ----------
    flux: nJy a pixel; NaN where missing.
    noise: 1 sigma in nJy, of the background; 0 or NaN where invalid.
    mask: bits of `jaisp.store.layout.Flag`.
    psf_fwhm_arcsec: NaN for a band without data.
    psf: stamps on the tile's own pixels, the same size for all patches of a group; or None.
    """

    flux: Float32[np.ndarray, "band y x"]
    noise: Float32[np.ndarray, "band y x"]
    mask: UInt8[np.ndarray, "band y x"]
    psf_fwhm_arcsec: Float32[np.ndarray, " band"]
    psf: Float32[np.ndarray, "band k k"] | None = None


class GroupWriter:
    """Writes a group at `path`, removing first what an earlier, killed job left there.

    Parameters
    ----------
    path: folder of the group; one that nothing reads yet, to be renamed when finished.
    bands, pixels, patches: the shape: bands in order, side of a patch in pixels, rows of the cell.
    grid_arcsec: size of a pixel.
    flux_dtype: "int16" (sinh codes) or "float32".
    attributes: JSON values to keep with the group. `hash`, the config's group hash, is what
        publishing compares; tiles, zero points and the like are for people.
    threads: how many compress and write.

    `finish` must be called once every row has been written; a group left without is incomplete,
    and publishing says so.
    """

    def __init__(
        self,
        path: Path | str,
        bands: Sequence[str],
        pixels: int,
        patches: int,
        grid_arcsec: float,
        flux_dtype: str = "int16",
        attributes: Mapping[str, Any] | None = None,
        threads: int = 1,
    ) -> None:
        self.path = Path(path)
        self.bands = list(bands)
        self.pixels = pixels
        self.patches = patches
        self.flux_dtype = flux_dtype
        self.rows_per_shard = layout.patches_per_shard(len(self.bands), pixels, patches)
        self._attributes = {
            **(attributes or {}),
            "bands": self.bands,
            "grid_arcsec": grid_arcsec,
            "pixels": pixels,
            "units": "nJy",
        }
        self._written = np.zeros(patches, bool)
        self._tables = {
            name: np.full((patches, len(self.bands)), empty, np.float32)
            for name, empty in layout.BAND_TABLES.items()
        }
        self._psf: np.ndarray | None = None
        self._shard: int | None = None
        self._covered = False  # any patch of the shard
        self._buffers: dict[str, np.ndarray] = {}
        self._finished = False
        if self.path.exists():
            shutil.rmtree(self.path)
        self._group = zarr.create_group(self.path, attributes=_sorted(self._attributes))
        self._created = layout.create_planes(
            self._group, len(self.bands), pixels, patches, flux_dtype
        )
        self._arrays = {
            name: _open_for_writing(self.path / name, threads) for name in self._created
        }

    def __enter__(self) -> "GroupWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None and not self._finished:
            raise RuntimeError(f"{self.path}: the group was left before finish()")

    def write(self, row: int, planes: PatchPlanes | None) -> None:
        """Take one row; None for a patch that the survey does not cover.

        Raises ValueError for a row outside the cell, a row written before, a row of a shard that
        is already on disk, and planes of the wrong shape.
        """
        if not 0 <= row < self.patches:
            raise ValueError(f"row {row} is outside the cell's {self.patches} patches")
        if self._written[row]:
            raise ValueError(f"row {row} was written before")
        self._open_shard(row // self.rows_per_shard)
        self._written[row] = True
        if planes is not None:
            self._check(planes)
            self._encode(row, planes)

    def finish(
        self,
        noise_correlation: Float32[np.ndarray, "band 2"],
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the last shard, the tables and the final attributes.

        `noise_correlation`: measured over white-noise scatter in apertures 1 and 3 arcsec wide.
        Raises ValueError when rows are missing.
        """
        if not self._written.all():
            missing = np.flatnonzero(~self._written)
            raise ValueError(f"{self.path}: {len(missing)} rows not written, e.g. {missing[0]}")
        self._flush()
        for name, values in self._tables.items():
            layout.write_band_table(self._group, name, values)
        if self._psf is not None:
            layout.write_psf(self._group, self._psf)
        layout.write_noise_correlation(self._group, noise_correlation)
        self._group.attrs.put(_sorted({**self._attributes, **(attributes or {})}))
        self._finished = True

    def _check(self, planes: PatchPlanes) -> None:
        shape = (len(self.bands), self.pixels, self.pixels)
        for name in layout.PLANES:
            if getattr(planes, name).shape != shape:
                found = getattr(planes, name).shape
                raise ValueError(f"{name} is {found}, the group holds patches of {shape}")

    def _encode(self, row: int, planes: PatchPlanes) -> None:
        background = _background(planes.noise)
        scale = background / np.float32(STEPS_PER_NOISE)
        noise = encode_noise(planes.noise, background)
        mask = planes.mask
        flux = planes.flux
        if self.flux_dtype == "int16":
            flux = encode_flux(planes.flux, scale)
            if (np.abs(flux) == LARGEST_CODE).any():
                mask = mask | np.uint8(Flag.CLIPPED) * is_clipped(planes.flux, scale)

        self._covered = True
        place = row % self.rows_per_shard
        for name, values in (("flux", flux), ("noise", noise), ("mask", mask)):
            self._buffers[name][place] = values
        self._tables["coverage"][row] = layout.coverage(np.isfinite(planes.flux), noise, mask)
        self._tables["psf_fwhm_arcsec"][row] = planes.psf_fwhm_arcsec
        self._tables["scale"][row] = scale
        self._tables["noise_scale"][row] = background
        if planes.psf is not None:
            if self._psf is None:
                self._psf = np.full((self.patches, *planes.psf.shape), np.nan, np.float32)
            self._psf[row] = planes.psf

    def _open_shard(self, shard: int) -> None:
        if shard == self._shard:
            return
        first = shard * self.rows_per_shard
        rows = slice(first, min(first + self.rows_per_shard, self.patches))
        if self._written[rows].any():
            raise ValueError(f"rows {first} to {rows.stop - 1} are already on disk")
        self._flush()
        self._shard, self._covered = shard, False
        for name, array in self._created.items():
            shape = (rows.stop - first, *array.shape[1:])
            self._buffers[name] = np.full(shape, array.fill_value, array.dtype)

    def _flush(self) -> None:
        if self._shard is None or not self._covered:
            return
        first = self._shard * self.rows_per_shard
        for name, values in self._buffers.items():
            self._arrays[name][first : first + len(values)].write(values).result()
        self._buffers = {}
        self._shard = None


def withdraw(store: Path) -> None:
    """Make a store unopenable until it is published again; call before changing its groups."""
    (store / "zarr.json").unlink(missing_ok=True)


def _open_for_writing(path: Path, threads: int) -> tensorstore.TensorStore:
    """An array that is there: tensorstore writes a shard in a third of zarr's time."""
    limit = {"limit": threads}
    return tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path.absolute())},
            "context": {"data_copy_concurrency": limit, "file_io_concurrency": limit},
        },
        open=True,
    ).result()


def _background(noise: Float32[np.ndarray, "band y x"]) -> Float32[np.ndarray, " band"]:
    """The 10th percentile of each band's valid noise; 0 where none is valid.

    Of every fourth row and column of large patches: noise changes slowly.
    """
    step = 4 if min(noise.shape[1:]) >= LARGE else 1
    levels = []
    for band in noise:
        few = band[::step, ::step]
        few = few[np.isfinite(few) & (few > 0)]
        if not few.size:
            few = band[np.isfinite(band) & (band > 0)]
        levels.append(np.percentile(few, 10) if few.size else 0.0)
    return np.array(levels, np.float32)


def _sorted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The same JSON, keys sorted at every level, so that the file's bytes are too."""
    return json.loads(json.dumps(attributes, sort_keys=True, allow_nan=False))
