"""Is a group of the patch store whole: made with this config, complete, every chunk readable?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from jaxtyping import Bool, Float32

from jaisp.config import Config, group_hash
from jaisp.errors import UserError, reason
from jaisp.files import folder_sha256, read_json
from jaisp.sky import Cell
from jaisp.store import layout
from jaisp.store.codes import MISSING
from jaisp.store.reader import open_array

REQUIRED = {*layout.PLANES, *layout.BAND_TABLES, "noise_correlation"}


@dataclass(frozen=True, eq=False)
class CheckedGroup:
    """A group that was found whole. covered: patches with data in any band."""

    sha256: str
    covered: Bool[np.ndarray, " patch"]


def check_group(
    config: Config, path: Path, cell: Cell, survey: str, written: str | None = None
) -> CheckedGroup:
    """Compare a group with the config, and all of its bytes with what was written.

    written: the checksum that its warp told, having read its files again; without one, every chunk
    is decoded. Raises UserError, in one line that names the group and says what to do.
    """
    redo = f"delete {path} and rerun its warp (`snakemake -R warp_batch`)"
    _check_config(config, path, cell, survey, redo)
    if written is None:
        covered = _decoded(path, cell, redo)
        return CheckedGroup(folder_sha256(path), covered)
    found = folder_sha256(path)
    if found != written:
        raise UserError(f"{path}: not the bytes that its warp's receipt tells of; {redo}")
    coverage = open_array(path / "coverage").read().result()
    return CheckedGroup(found, np.any(coverage > 0, axis=1))


def _check_config(config: Config, path: Path, cell: Cell, survey: str, redo: str) -> None:
    """Whether the group is finished, and one that this config asks for."""
    if not path.is_dir():
        raise UserError(f"{path}: missing; {redo}")
    unfinished = [name for name in sorted(REQUIRED) if not (path / name / "zarr.json").is_file()]
    if (path / "zarr.json").is_file() and unfinished:
        raise UserError(f"{path}: not finished; {redo}")
    try:
        made_with = read_json(path / "zarr.json")["attributes"].get("hash")
        shape = tuple(read_json(path / "flux" / "zarr.json")["shape"])
    except Exception as error:  # damaged metadata fails in as many ways as there are bytes
        raise UserError(f"{path}: can't be opened ({reason(error)}); {redo}") from None
    if made_with != group_hash(config, survey, cell):
        raise UserError(
            f"{path}: made with another sky, patch, warp or surveys.{survey} config; {redo}"
        )
    pixels = config.patch_pixels(survey)
    expected = (len(cell), len(config.surveys[survey].bands), pixels, pixels)
    if shape != expected:
        raise UserError(f"{path}: holds {shape} (patch, band, y, x), not {expected}; {redo}")


def _decoded(path: Path, cell: Cell, redo: str) -> Bool[np.ndarray, " patch"]:
    """Read all of a group; returns which patches have data."""
    try:
        arrays = dict(zarr.open_group(path, mode="r").arrays())
    except Exception as error:
        raise UserError(f"{path}: can't be opened ({reason(error)}); {redo}") from None
    tables = {}
    for name in sorted(set(arrays) - set(layout.PLANES)):
        try:
            tables[name] = np.asarray(arrays[name][...])
        except Exception as error:
            raise UserError(f"{path / name}: damaged ({reason(error)}); {redo}") from None
    coverage = tables["coverage"]
    _check_tables(path, tables, redo)
    _, bands, pixels, _ = arrays["flux"].shape
    step = layout.patches_per_shard(bands, pixels, len(cell))
    for start in range(0, len(cell), step):
        rows = slice(start, min(start + step, len(cell)))
        # A shard that is gone reads as uncovered patches; the coverage knows better.
        if not np.allclose(_measured_coverage(path, rows, redo), coverage[rows], atol=1e-6):
            raise UserError(
                f"{path}: damaged: patches {start} to {rows.stop - 1} lack data that were "
                f"written; {redo}"
            )
    return np.any(coverage > 0, axis=1)


def _check_tables(path: Path, tables: dict[str, np.ndarray], redo: str) -> None:
    """A table whose only chunk is gone reads as its fill value."""
    covered = tables["coverage"] > 0
    for name in ("scale", "noise_scale"):
        if not (tables[name][covered] > 0).all():
            raise UserError(f"{path / name}: damaged (0 for a patch with data); {redo}")
    if not np.isfinite(tables["noise_correlation"]).all():
        raise UserError(f"{path / 'noise_correlation'}: damaged (not finite); {redo}")


def _measured_coverage(path: Path, rows: slice, redo: str) -> Float32[np.ndarray, "patch band"]:
    """Read one shard of every plane and measure its coverage again."""
    planes = {}
    for name in layout.PLANES:
        try:
            planes[name] = open_array(path / name)[rows].read().result()
        except Exception as error:  # whatever the bytes make zstd, crc32c or tensorstore say
            where = f"{path / name}: damaged: patches {rows.start} to {rows.stop - 1}"
            raise UserError(f"{where} can't be read ({reason(error)}); {redo}") from None
    flux = planes["flux"]
    known = flux != MISSING if flux.dtype == np.int16 else np.isfinite(flux)
    return layout.coverage(known, planes["noise"], planes["mask"])
