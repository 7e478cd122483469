"""Stage publish: check every group, write the index and the split, and make the store whole.

A store is published by its root `zarr.json`, which is removed before anything changes and written
last, in one rename. Groups themselves are never touched, so that adding a survey or a cell leaves
the others' bytes alone.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import jaisp
from jaisp.blocks import cell_receipts
from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.files import partial_dir, read_json, replace_folder, write_json
from jaisp.progress import track
from jaisp.sky import SPLITS, Cell, cells, splits
from jaisp.store.check import CheckedGroup, check_group
from jaisp.store.index import CHUNK
from jaisp.store.layout import COMPRESSORS
from jaisp.store.writer import withdraw

logger = logging.getLogger(__name__)

MOST_CONSOLIDATED = 256  # cells of a store whose root holds the metadata of all of its arrays
WRITERS = 16  # files that are synced at once
SMALLEST_FINE_GRID = 4  # pixels per token below which positions can't be told

Groups = dict[tuple[str, str], CheckedGroup]


def publish(config: Config, threads: int = 1) -> dict[str, Any]:
    """Publish results/RUN/patches.zarr; returns its counts and a checksum a group.

    threads: groups that are checked at once.

    Raises UserError when a group is missing, damaged or made with another config, when a survey
    covers nothing, and when no patch is covered by two surveys.
    """
    store = config.results / "patches.zarr"
    withdraw(store)
    sky_cells = cells(config)
    _check_presence(config, store, sky_cells)
    groups = dict(_checked(config, store, sky_cells, threads))
    _check_overlap(config, sky_cells, groups)
    for survey in config.surveys:
        pixels_per_token, grid_arcsec = config.grid(survey)
        if pixels_per_token < SMALLEST_FINE_GRID:
            logger.warning(
                "%s: a token of %g″ is only %d pixels of %g″; the survey gets no position figures",
                survey,
                config.model.token_arcsec,
                pixels_per_token,
                grid_arcsec,
            )

    split = splits(config, sky_cells)
    _write_index(config, store, sky_cells, split)
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(partial(_write_cell, store), sky_cells):
            pass
    _write_root(config, store, sky_cells)
    return _receipt(groups, split)


def _checked(
    config: Config, store: Path, sky_cells: list[Cell], threads: int
) -> Iterator[tuple[tuple[str, str], CheckedGroup]]:
    """Every group, whole, and still what `warp` says that it wrote."""
    receipts = cell_receipts(config, "warp", sky_cells)
    wanted = [(cell, survey) for cell in sky_cells for survey in sorted(config.surveys)]

    def check(place: tuple[Cell, str]) -> tuple[tuple[str, str], CheckedGroup]:
        cell, survey = place
        key = cell.name, survey
        written = receipts[key]["sha256"] if key in receipts else None
        return key, check_group(config, store / cell.name / survey, cell, survey, written)

    with ThreadPoolExecutor(threads) as pool:
        yield from track(pool.map(check, wanted), "publish", total=len(wanted))


def _write_cell(store: Path, cell: Cell) -> None:
    attributes = {"ra": cell.ra, "dec": cell.dec, "patch_arcsec": cell.patch_arcsec}
    write_json(store / cell.name / "zarr.json", _group_metadata(attributes))


def _check_presence(config: Config, store: Path, sky_cells: list[Cell]) -> None:
    missing = [
        f"{cell.name}/{survey}"
        for cell in sky_cells
        for survey in config.surveys
        if not (store / cell.name / survey).is_dir()
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{store}: group {missing[0]}{more} missing; run its warp (`snakemake -R warp_batch`)"
        )


def _check_overlap(config: Config, sky_cells: list[Cell], groups: Groups) -> None:
    covered = {
        survey: np.concatenate([groups[cell.name, survey].covered for cell in sky_cells])
        for survey in config.surveys
    }
    for survey, patches in covered.items():
        if not patches.any():
            raise UserError(
                f"surveys.{survey}: covers none of the {len(patches)} patches of `sky`; check its "
                f"archive and {config.results / 'problems.ecsv'}"
            )
    if np.sum(list(covered.values()), axis=0).max() < 2:
        counts = ", ".join(f"{survey} {patches.sum()}" for survey, patches in covered.items())
        raise UserError(
            f"surveys: no patch is covered by two surveys (patches covered: {counts}); they "
            "don't overlap on this `sky`"
        )


def _write_index(
    config: Config, store: Path, sky_cells: list[Cell], split: dict[str, np.ndarray]
) -> None:
    """Write /index: one row a patch, sorted by cell and row, chunk by chunk."""
    names = ", ".join(f"{number} {name}" for name, number in SPLITS.items())
    columns: dict[str, tuple[Any, str]] = {
        "cell": (np.dtypes.StringDType(), "name of the cell"),
        "row": (np.dtype(np.int32), "row in the cell's groups"),
        "ra": (np.dtype(np.float64), "right ascension, degrees"),
        "dec": (np.dtype(np.float64), "declination, degrees"),
        "x": (np.dtype(np.float64), "centre on the cell's plane, arcsec towards the west"),
        "y": (np.dtype(np.float64), "centre on the cell's plane, arcsec towards the north"),
        "split": (np.dtype(np.uint8), names),
    }
    total = sum(len(numbers) for numbers in split.values())
    partial_index = partial_dir(config) / "index"
    group = zarr.create_group(partial_index, overwrite=True)
    arrays = {
        name: group.create_array(
            name,
            shape=(total,),
            dtype=dtype,
            chunks=(min(total, CHUNK),),
            compressors=COMPRESSORS,
            dimension_names=("patch",),
            attributes={"long_name": meaning},
        )
        for name, (dtype, meaning) in columns.items()
    }
    begin = 0
    waiting: list[dict[str, np.ndarray]] = []
    for cell in sky_cells:
        waiting.append(_index_rows(cell, split[cell.name]))
        while (count := sum(len(rows["row"]) for rows in waiting)) >= CHUNK or (
            count and begin + count == total
        ):
            joined = {name: np.concatenate([rows[name] for rows in waiting]) for name in arrays}
            end = min(begin + CHUNK, total)
            for name, array in arrays.items():
                array[begin:end] = joined[name][: end - begin]
            waiting = [{name: values[end - begin :] for name, values in joined.items()}]
            begin = end
    replace_folder(partial_index, store / "index")


def _index_rows(cell: Cell, split: np.ndarray) -> dict[str, np.ndarray]:
    """A cell's part of every column."""
    ra, dec = cell.sky_centres()
    return {
        "cell": np.full(len(cell), cell.name, np.dtypes.StringDType()),
        "row": np.arange(len(cell), dtype=np.int32),
        "ra": ra,
        "dec": dec,
        "x": cell.centres[:, 0],
        "y": cell.centres[:, 1],
        "split": split,
    }


def _write_root(config: Config, store: Path, sky_cells: list[Cell]) -> None:
    """Write the root's attributes and consolidated metadata: the store is published."""
    surveys = {}
    for name, survey in config.surveys.items():
        pixels_per_token, grid_arcsec = config.grid(name)
        surveys[name] = {
            "bands": survey.bands,
            "grid_arcsec": grid_arcsec,
            "pixels_per_token": pixels_per_token,
        }
    attributes = {
        "published": True,
        "run": config.run,
        "version": jaisp.__version__,
        "patch_arcsec": config.patch.arcsec,
        "token_arcsec": config.model.token_arcsec,
        "cells": {cell.name: {"ra": cell.ra, "dec": cell.dec} for cell in sky_cells},
        "surveys": surveys,
    }
    root = _group_metadata(attributes)
    # Of many cells, every opening would read megabytes to know of arrays that are never asked for.
    if len(sky_cells) <= MOST_CONSOLIDATED:
        metadata = {
            node.relative_to(store).as_posix(): read_json(node / "zarr.json")
            for node in _nodes(store, sky_cells, sorted(surveys))
        }
        root["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": metadata,
        }
    write_json(store / "zarr.json", root)


def _nodes(store: Path, sky_cells: list[Cell], surveys: list[str]) -> Iterator[Path]:
    """Groups and arrays that this config asks for; others' may lie in the folder too."""
    yield from (store / cell.name for cell in sky_cells)
    groups = [store / cell.name / survey for cell in sky_cells for survey in surveys]
    for group in [store / "index", *groups]:
        yield group
        yield from sorted(file.parent for file in group.glob("*/zarr.json"))


def _group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """The content of a group's `zarr.json` (Zarr v3 core specification)."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _receipt(groups: Groups, split: dict[str, np.ndarray]) -> dict[str, Any]:
    numbers = np.concatenate(list(split.values()))
    return {
        "patches": len(numbers),
        "split": {name: int((numbers == number).sum()) for name, number in SPLITS.items()},
        "groups": {
            f"{cell}/{survey}": {"covered": int(group.covered.sum()), "sha256": group.sha256}
            for (cell, survey), group in groups.items()
        },
    }
