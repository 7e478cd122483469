"""Where sources are put: evenly, apart, and nowhere in a cell that has no room."""

from pathlib import Path

import numpy as np
import pytest

from jaisp.config import parse_config
from jaisp.errors import TileError
from jaisp.inject.placement import place_sources
from jaisp.sky import cells
from tests.configs import small_config


def config_of(*widths_arcsec, spacing_arcsec=6.4):
    """Fields side by side, each a cell of its own with patches of 12.8″."""
    sky = [
        {"ra": 150.0 + k, "dec": 2.0, "width_arcmin": w / 60, "height_arcmin": w / 60}
        for k, w in enumerate(widths_arcsec)
    ]
    inject = {"spacing_arcsec": spacing_arcsec}
    content = small_config(sky=sky, inject=inject, split={"test": 0.4, "validation": 0.0})
    return parse_config(content, Path("small.yaml"))


def test_a_cell_without_room_holds_no_source_and_the_others_do():
    config = config_of(12.8, 64.0, spacing_arcsec=20.0)
    assert [len(cell) for cell in cells(config)] == [1, 25]
    placed = [place_sources(config, np.random.default_rng(k), 3.0) for k in range(20)]
    assert any("field0" not in set(table["cell"]) for table in placed)
    assert all("field1" in set(table["cell"]) for table in placed)
    assert all(table["split"].dtype.kind in "US" for table in placed)


def test_nowhere_any_room_is_said():
    with pytest.raises(TileError, match="no room"):
        place_sources(config_of(12.8), np.random.default_rng(1), 6.4)


def test_sources_stay_apart():
    table = place_sources(config_of(64.0), np.random.default_rng(2))
    xy = np.stack([table["x"], table["y"]], axis=1)
    apart = np.hypot(*(xy[:, None] - xy).T)
    np.fill_diagonal(apart, np.inf)
    assert len(table) > 40
    assert apart.min() > 0.85 * 6.4
