"""Which cells a job goes over, and what its receipt says."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.blocks import MOST_JOBS, cell_batches, cell_receipts, chosen_batches
from jaisp.config import batch_hash, group_hash, parse_config
from jaisp.dag import Run
from jaisp.errors import UserError
from jaisp.files import batch_receipt, write_receipt
from jaisp.sky import Cell, cells
from tests.configs import small_config


def sky(numbers, kind="o7p", digits=7):
    nothing = np.zeros((1, 2))
    names = sorted(f"{kind}{number:0{digits}d}" for number in numbers)
    return [Cell(name, 0.0, 0.0, 51.2, nothing) for name in names]


numbers = st.sets(st.integers(0, 196_607), min_size=1, max_size=2000)


@settings(max_examples=40, deadline=None)
@given(numbers=numbers, surveys=st.integers(1, 4))
def test_every_cell_is_in_one_batch_of_few(numbers, surveys):
    sky_cells = sky(numbers)
    batches = cell_batches(sky_cells, surveys)
    assert [c for batch in batches.values() for c in batch] == sky_cells
    assert len(batches) * surveys <= MOST_JOBS
    if len(sky_cells) * surveys <= MOST_JOBS:
        assert list(batches) == [cell.name for cell in sky_cells]


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 10_000), more=st.integers(0, 300))
def test_sky_that_is_added_elsewhere_moves_no_cell(start, more):
    first = cell_batches(sky(range(start, start + 700)), 2)
    grown = cell_batches(sky([*range(start, start + 700), *range(150_000, 150_000 + more)]), 2)
    size = {name[-4:] for name in first}
    if size == {name[-4:] for name in grown}:
        assert {k: [c.name for c in v] for k, v in first.items()}.items() <= {
            k: [c.name for c in v] for k, v in grown.items()
        }.items()


def test_blocks_are_named_by_their_first_number_and_size():
    batches = cell_batches(sky(range(1000, 1400)), 2)
    assert list(batches)[:2] == ["o7p0001000n0004", "o7p0001004n0004"]
    assert [c.name for c in batches["o7p0001004n0004"]] == [
        f"o7p{n:07d}" for n in range(1004, 1008)
    ]
    assert set(cell_batches(sky(range(400), "field", 1), 1)) == {
        f"field{n}n0002" for n in range(0, 400, 2)
    }


def test_ten_thousand_cells_are_fewer_than_a_thousand_jobs(tmp_path):
    survey = {"bands": ["r"], "pixel_arcsec": 0.2, "archive": {"kind": "simulated"}}
    content = {
        "run": "wide",
        "sky": {"ra": 53.0, "dec": -28.0, "width_arcmin": 2950, "height_arcmin": 2950},
        "surveys": {"a": survey, "b": survey},
    }
    config = parse_config(content, tmp_path / "wide.yaml")
    sky_cells = cells(config)
    assert len(sky_cells) > 10_000
    run = Run(config, sky_cells, cell_batches(sky_cells, 2))
    stages = ("warp", "embed", "maps")
    assert len(stages) * len(run.cells) * len(run.surveys) <= 1000
    hashes = [run.batch_hash(name, "a") for name in run.cells]
    assert len(set(hashes)) == len(hashes)
    # Blocks follow one another on the sky: they share tiles.
    spans = [batch[-1].name > batch[0].name for batch in run.cell_batches.values()]
    assert np.mean(spans) > 0.9
    assert all(a < b for a, b in pairwise(run.cells))


def test_of_one_cell_the_job_depends_on_what_its_group_does(tmp_path):
    config = parse_config(small_config(), tmp_path / "c.yaml")
    (cell,) = cells(config)
    assert batch_hash(config, "wide", [cell]) == group_hash(config, "wide", cell)
    assert batch_hash(config, "wide", [cell, cell]) != group_hash(config, "wide", cell)


def test_an_unknown_cell_is_told(tmp_path):
    config = parse_config(small_config(), tmp_path / "c.yaml")
    sky_cells = sky(range(1000))
    assert list(chosen_batches(config, sky_cells, "o7p0000008n0008")) == ["o7p0000008n0008"]
    assert chosen_batches(config, sky_cells, "o7p0000003") == {"o7p0000003": [sky_cells[3]]}
    with pytest.raises(UserError, match="--cell: 'o7p0000001n0008' is not one of o7p0000000n0008"):
        chosen_batches(config, sky_cells, "o7p0000001n0008")


def test_receipts_of_blocks_tell_of_each_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(small_config(), tmp_path / "c.yaml")
    # The last block has one cell.
    sky_cells = sky([*range(400), 500])
    for name, batch in cell_batches(sky_cells, len(config.surveys)).items():
        for survey in config.surveys:
            receipts = [
                {"cell": c.name, "survey": survey, "sha256": f"{c.name} {survey}", "tiles": [1]}
                for c in batch
            ]
            write_receipt(config, "warp", f"{name}.{survey}", batch_receipt(receipts))
    found = cell_receipts(config, "warp", sky_cells)
    assert {key: entry["sha256"] for key, entry in found.items()} == {
        (c.name, survey): f"{c.name} {survey}" for c in sky_cells for survey in config.surveys
    }
    json.dumps(list(found.values()))
