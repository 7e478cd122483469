"""A second simulated field with other seeing and depth, and its zero-flux counterpart."""

from typing import Any

import numpy as np
from astropy.table import Table

from jaisp.archives import find_tiles
from jaisp.config import Config
from jaisp.config.geometry import Region
from jaisp.files import remove_folder
from jaisp.inject.register import register
from jaisp.simulate import simulate
from jaisp.sky import cells, plane_xy
from jaisp.warp import warp
from jaisp.warp.tile import TileReader

AWAY_DEG = 2.0
PATCHES_A_SIDE = 5
SEEING, EXPOSURE = 1.25, 0.6  # relative to the first field
SEED = 1000  # added to the first field's
TABLES = ("truth.ecsv", "offsets.ecsv", "listing.ecsv")


def second_config(config: Config, run: str, *, zero_flux: bool) -> Config:
    """The config of the second field: all of it is test sky, for nothing trains there."""
    assert isinstance(config.sky, list)
    first = config.sky[0]
    side = PATCHES_A_SIDE * config.patch.arcsec / 60.0
    dec = first.dec + (AWAY_DEG if first.dec < 90.0 - 2 * AWAY_DEG else -AWAY_DEG)
    region = Region(
        ra=first.ra,
        dec=dec,
        width_arcmin=min(first.width_arcmin, side),
        height_arcmin=min(first.height_arcmin, side),
    )
    everything = region.model_copy(update={"width_arcmin": 60.0, "height_arcmin": 60.0})
    made = config.simulate
    changes: dict[str, Any] = {
        "seed": made.seed + SEED,
        "exposure": made.exposure * EXPOSURE,
        "seeing": made.seeing * SEEING,
        "tiles_per_side": 1,
    }
    if zero_flux:
        changes |= {"galaxies_per_arcmin2": 0.0, "stars_per_arcmin2": 0.0}
    return config.model_copy(
        update={
            "run": run,
            "sky": [region],
            "cell_order": "auto",
            "split": config.split.model_copy(update={"test": [everything], "validation": 0.0}),
            "simulate": made.model_copy(update=changes),
        }
    )


def simulate_second(second: Config) -> None:
    """Make its tiles; they go again with `remove_tiles`."""
    simulate(second)
    tiles = [tile for survey in second.surveys for tile in find_tiles(second, survey)]
    readers = [TileReader(tile) for tile in tiles]
    register(second, list(zip(tiles, readers, strict=True)))
    for reader in readers:
        reader.close()


def remove_tiles(second: Config) -> None:
    """Keep what tells of the archive, and remove its tiles."""
    for survey in second.surveys:
        remove_folder(second.results / "simulated" / survey)


def warp_second(second: Config) -> Table:
    """Warp the second field; returns its truth table, with each source's place on the cell."""
    simulate_second(second)
    for survey in second.surveys:
        for cell in cells(second):
            warp(second, cell, survey)
    remove_tiles(second)
    truth = Table.read(second.results / "simulated" / "truth.ecsv", format="ascii.ecsv")
    (cell,) = cells(second)
    x, y = plane_xy(cell, np.asarray(truth["ra"]), np.asarray(truth["dec"]))
    away = np.abs(np.stack([x, y], axis=1)[:, None] - cell.centres).max(axis=2)
    on = away.min(axis=1) < cell.patch_arcsec / 2
    truth = truth[on]
    place = Table({"row": np.argmin(away[on], axis=1), "x": x[on], "y": y[on]})
    place["cell"], place["split"] = cell.name, "test"
    for name in place.colnames:
        truth[name] = place[name]
    return truth
