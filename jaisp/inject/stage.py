"""Stage inject: small stores whose answers are known, made by the run's own code.

A sky is a derived run below `results/RUN/injected/`: its tiles are written, warped and published
as any other's, and removed again. `sources.ecsv` is written last: a folder that holds it is whole.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from astropy.table import Table

from jaisp.archives.table import read_tiles, tile_planes
from jaisp.config import Config, group_hash, stage_hash, stage_version
from jaisp.errors import TileError, UserError
from jaisp.files import (
    atomic_write,
    folder_sha256,
    locked,
    partial_dir,
    read_json,
    receipt_path,
    remove_folder,
    sha256,
    write_json,
)
from jaisp.inject.displaced import inject_displaced
from jaisp.inject.names import (
    DISPLACED,
    PAIRS,
    SECOND,
    SECOND_EMPTY,
    kind_of,
    sky_names,
    why_none,
)
from jaisp.inject.peaks import count_peaks
from jaisp.inject.points import inject_points
from jaisp.inject.second import second_config, simulate_second, warp_second
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.store.reader import open_store

log = logging.getLogger(__name__)

SOURCES, ORIGIN = "sources.ecsv", "origin.json"
# What is left of a derived run when it is done; all else is scaffolding.
KEPT = {"patches.zarr", SOURCES, ORIGIN, "simulated"}
FIRST = ("cell", "row", "x", "y", "split")


def inject(config: Config, name: str) -> dict[str, Any]:
    """Make one sky, results/RUN/injected/NAME/, and return what its receipt says.

    A sky that is whole and made from the same tiles with the same code is kept; one that this
    field's tiles don't allow is skipped, with the reason. Raises UserError for a name that the run
    doesn't have.
    """
    names = sky_names(config, cells(config))
    if name not in names:
        reason = why_none(config, cells(config)) or f"this run has {', '.join(names)}"
        raise UserError(f"--sky: no sky {name!r}; {reason}")
    folder = config.results / "injected" / name
    with locked(partial_dir(config) / f"inject.{name}.lock"):
        origin = _made_from(config, name)
        kept = _kept(folder, origin)
        if kept is not None:
            log.info("inject %s: whole and up to date, kept", name)
            return kept
        _begin(folder, origin)
        try:
            sources = _make(config, name)
        except TileError as error:
            log.warning("inject %s: skipped: %s", name, error)
            remove_folder(folder)
            return {"sky": name, "skipped": str(error)}
        columns = [*FIRST, *(column for column in sources.colnames if column not in FIRST)]
        with atomic_write(folder / SOURCES) as temporary:
            sources[columns].write(temporary, format="ascii.ecsv", overwrite=True)
        receipt = {
            "sky": name,
            "sources": len(sources),
            "sources_sha256": sha256(folder / SOURCES),
            "store_sha256": folder_sha256(folder / "patches.zarr"),
        }
        write_json(folder / ORIGIN, {"made_from": origin, "receipt": receipt})
        _tidy(folder)
    log.info("inject %s: %d sources", name, len(sources))
    return receipt


def gather_injected(config: Config) -> dict[str, Any]:
    """After every sky: what there is, or why there is none."""
    sky_cells = cells(config)
    reason = why_none(config, sky_cells)
    if reason:
        log.info("no sky with known answers: %s", reason)
        return {"skies": {}, "skipped": reason}
    names = sky_names(config, sky_cells)
    skies = {name: read_json(receipt_path(config, "inject", name)) for name in names}
    return {"skies": skies, "skipped": None}


def derived_config(config: Config, name: str) -> Config:
    """The config of the derived run of a sky."""
    return config.model_copy(update={"run": f"{config.run}/injected/{name}"})


def _make(config: Config, name: str) -> Table:
    """Warp and publish one sky; returns its table of sources."""
    kind = kind_of(name)
    derived = derived_config(config, name)
    if kind == SECOND:
        second = second_config(config, derived.run, zero_flux=False)
        sources = warp_second(second)
        publish(second)
        return sources
    if kind == SECOND_EMPTY:
        # Geometry, noise and masks of the second field, without its sources.
        second = second_config(config, derived.run, zero_flux=True)
        home = second.model_copy(update={"run": f"{derived.run}/home"})
        simulate_second(home)
        sources = inject_points(home, second, name)
        remove_folder(home.results)
        publish(second)
        return sources
    make = inject_displaced if kind == DISPLACED else inject_points
    sources = make(config, derived, name)
    publish(derived)
    if kind == PAIRS:
        store = open_store(derived.results / "patches.zarr")
        for survey in config.surveys:
            sources[f"peaks_{survey}"] = count_peaks(store, survey, sources)
    return sources


def _made_from(config: Config, name: str) -> str:
    """Hash of all that a sky's bytes depend on: config, code, and the tiles' checksums."""
    content = {
        "name": name,
        "config": [stage_hash(config, stage) for stage in ("inject", "publish", "simulate")],
        "groups": [group_hash(config, s, cell) for s in config.surveys for cell in cells(config)],
        "code": [stage_version(stage) for stage in ("inject", "warp", "publish", "simulate")],
        "tiles": [
            [tile.survey, tile.band, tile.id, sorted(p.sha256 for p in tile_planes(tile).values())]
            for tile in read_tiles(config, fetched=True)
        ],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _kept(folder: Path, origin: str) -> dict[str, Any] | None:
    """The receipt of a sky that can be kept: same origin, and every byte still as written."""
    if not (folder / ORIGIN).is_file() or not (folder / SOURCES).is_file():
        return None
    content = read_json(folder / ORIGIN)
    receipt = content.get("receipt")
    if content["made_from"] != origin or receipt is None:
        return None
    whole = receipt["sources_sha256"] == sha256(folder / SOURCES)
    whole = whole and receipt["store_sha256"] == folder_sha256(folder / "patches.zarr")
    return receipt if whole else None


def _begin(folder: Path, origin: str) -> None:
    """Withdraw an older sky. What a killed job of the same origin has warped is kept."""
    (folder / SOURCES).unlink(missing_ok=True)
    note = folder / ORIGIN
    if not note.is_file() or read_json(note)["made_from"] != origin:
        remove_folder(folder)
        folder.mkdir(parents=True)
    write_json(note, {"made_from": origin})


def _tidy(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in KEPT:
            if path.is_dir():
                remove_folder(path)
            else:
                path.unlink()
