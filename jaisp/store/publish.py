"""Stage publish: check every group, write the index and the split, and make the store whole.

A store is published by its root `zarr.json`, which is removed before anything changes and written
last, in one rename. Groups themselves are never touched, so that adding a survey or a cell leaves
the others' bytes alone.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import jaisp
from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.files import partial_dir, read_json, receipt_path, replace_folder, write_json
from jaisp.progress import track
from jaisp.sky import SPLITS, Cell, cells, splits
from jaisp.store.check import CheckedGroup, check_group
from jaisp.store.writer import withdraw

logger = logging.getLogger(__name__)

SMALLEST_FINE_GRID = 4  # pixels per token below which positions can't be told

Groups = dict[tuple[str, str], CheckedGroup]


def publish(config: Config) -> dict[str, Any]:
    """Publish results/RUN/patches.zarr; returns its counts and a checksum a group.

    Raises UserError when a group is missing, damaged or made with another config, when a survey
    covers nothing, and when no patch is covered by two surveys.
    """
    store = config.results / "patches.zarr"
    withdraw(store)
    sky_cells = cells(config)
    _check_presence(config, store, sky_cells)
    wanted = [(cell, survey) for cell in sky_cells for survey in sorted(config.surveys)]
    groups = {
        (cell.name, survey): _checked(config, store / cell.name / survey, cell, survey)
        for cell, survey in track(wanted, "publish")
    }
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
    for cell in sky_cells:
        attributes = {"ra": cell.ra, "dec": cell.dec, "patch_arcsec": cell.patch_arcsec}
        write_json(store / cell.name / "zarr.json", _group_metadata(attributes))
    _write_root(config, store, sky_cells)
    return _receipt(groups, split)


def _checked(config: Config, path: Path, cell: Cell, survey: str) -> CheckedGroup:
    """A group that is whole, and still what `warp` says that it wrote."""
    found = check_group(config, path, cell, survey)
    receipt = receipt_path(config, "warp", f"{cell.name}.{survey}")
    if receipt.is_file() and read_json(receipt)["sha256"] != found.sha256:
        raise UserError(
            f"{path}: not the bytes that {receipt} tells of; delete {path} and rerun its warp "
            "(`snakemake -R warp_batch`)"
        )
    return found


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
    """Write /index: one row a patch, sorted by cell and row."""
    sky_centres = [cell.sky_centres() for cell in sky_cells]
    centres = np.concatenate([cell.centres for cell in sky_cells])
    names = np.repeat([cell.name for cell in sky_cells], [len(cell) for cell in sky_cells])
    columns = {
        "cell": (names.astype(np.dtypes.StringDType()), "name of the cell"),
        "row": (
            np.concatenate([np.arange(len(cell), dtype=np.int32) for cell in sky_cells]),
            "row in the cell's groups",
        ),
        "ra": (np.concatenate([ra for ra, _ in sky_centres]), "right ascension, degrees"),
        "dec": (np.concatenate([dec for _, dec in sky_centres]), "declination, degrees"),
        "x": (centres[:, 0], "centre on the cell's plane, arcsec towards the west"),
        "y": (centres[:, 1], "centre on the cell's plane, arcsec towards the north"),
        "split": (
            np.concatenate([split[cell.name] for cell in sky_cells]),
            ", ".join(f"{number} {name}" for name, number in SPLITS.items()),
        ),
    }
    partial = partial_dir(config) / "index"
    group = zarr.create_group(partial, overwrite=True)
    for name, (values, meaning) in columns.items():
        group.create_array(
            name,
            data=values,
            chunks=values.shape,
            dimension_names=("patch",),
            attributes={"long_name": meaning},
        )
    replace_folder(partial, store / "index")


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
    metadata = {
        node.relative_to(store).as_posix(): read_json(node / "zarr.json")
        for node in _nodes(store, sky_cells, sorted(surveys))
    }
    consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
    root = {**_group_metadata(attributes), "consolidated_metadata": consolidated}
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
