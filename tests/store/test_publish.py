"""Publishing: what is refused, what is written, what is left alone."""

import itertools
import json
import pickle
import shutil

import numpy as np
import pytest
import xarray
import zarr
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.config import group_hash
from jaisp.errors import UserError
from jaisp.files import folder_sha256, write_receipt
from jaisp.sky import Cell, cells, plane_radec, splits
from jaisp.store.index import Index
from jaisp.store.publish import publish
from jaisp.store.reader import open_store
from tests.store.groups import fill_store, realistic_planes, small_config, write_group

MESSAGE_LIMIT = 420


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return fill_store(small_config())


def refused(config, message):
    with pytest.raises(UserError, match=message) as caught:
        publish(config)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < MESSAGE_LIMIT
    with pytest.raises(UserError, match="not a published"):
        open_store(config.results / "patches.zarr")
    return str(caught.value)


def group_bytes(store):
    return {
        path.relative_to(store): path.read_bytes()
        for path in sorted(store.glob("field/*/**/*"))
        if path.is_file()
    }


def test_a_whole_store_is_published(store):
    receipt = publish(small_config())
    assert receipt["patches"] == 16
    assert sum(receipt["split"].values()) == 16
    assert receipt["split"]["train"] > 0
    assert receipt["groups"]["field/rubin"]["covered"] == 16
    assert len(receipt["groups"]["field/euclid_q1"]["sha256"]) == 64
    json.dumps(receipt)
    root = json.loads((store / "zarr.json").read_text())
    assert root["attributes"]["published"] is True
    assert root["attributes"]["surveys"]["rubin"]["grid_arcsec"] == pytest.approx(0.2)


def test_publishing_twice_gives_the_same_bytes(store):
    first = publish(small_config())
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    assert publish(small_config()) == first
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_a_missing_group_is_told(store):
    publish(small_config())
    shutil.rmtree(store / "field" / "rubin")
    refused(small_config(), "group field/rubin missing")


@pytest.mark.parametrize("plane", ["flux", "noise", "mask"])
def test_a_torn_shard_is_told(store, plane):
    shard = store / "field/rubin" / plane / "c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    refused(small_config(), rf"field/rubin/{plane}: damaged: patches 0 to 15 can't be read")


def test_a_flipped_bit_is_told(store):
    shard = store / "field/rubin/flux/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 4
    shard.write_bytes(content)
    refused(small_config(), "field/rubin/flux: damaged")


@pytest.mark.parametrize("plane", ["flux", "noise"])
def test_a_lost_shard_is_told(store, plane):
    (store / "field/rubin" / plane / "c/0/0/0/0").unlink()
    refused(small_config(), "patches 0 to 15 lack data")


def test_a_torn_table_is_told(store):
    table = store / "field/euclid_q1/scale/c/0/0"
    table.write_bytes(table.read_bytes()[:-5])
    refused(small_config(), "euclid_q1/scale: damaged")


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_torn_metadata_are_told(store, content):
    (store / "field/euclid_q1/zarr.json").write_text(content)
    refused(small_config(), "euclid_q1: can't be opened")


@pytest.mark.parametrize("table", ["scale", "noise_scale", "noise_correlation"])
def test_a_lost_table_is_told(store, table):
    """Its chunk gone, a table reads as its fill value."""
    shutil.rmtree(store / "field/rubin" / table / "c")
    refused(small_config(), f"field/rubin/{table}: damaged")


def test_an_array_without_its_metadata_is_told(store):
    (store / "field/rubin/mask/zarr.json").unlink()
    refused(small_config(), "field/rubin: not finished")


def test_bytes_other_than_the_receipt_tells_of_are_told(store):
    config = small_config()
    publish(config)
    told = folder_sha256(store / "field/rubin")
    write_receipt(config, "warp", "field.rubin", {"sha256": told})
    publish(config)
    write_receipt(config, "warp", "field.rubin", {"sha256": told[::-1]})
    refused(config, "field/rubin: not the bytes that its warp.s receipt tells of")


def test_an_unfinished_group_is_told(store):
    shutil.rmtree(store / "field/rubin/noise_correlation")
    refused(small_config(), "field/rubin: not finished")


def test_a_group_of_another_config_is_told(store):
    message = refused(small_config(warp={"kernel": "lanczos5"}), "made with another")
    assert "snakemake -R warp_batch" in message


def test_a_group_of_other_rows_is_told(store):
    config = small_config()
    attributes = {"hash": group_hash(config, "rubin", cells(config)[0])}
    write_group(store / "field/rubin", [None] * 3, ["g", "r"], 32, attributes=attributes)
    refused(config, r"holds \(3, 2, 32, 32\) \(patch, band, y, x\), not \(16, 2, 32, 32\)")


def test_surveys_that_do_not_overlap_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill_store(small_config(), {"rubin": range(5), "euclid_q1": range(5, 16)})
    refused(small_config(), r"patches covered: rubin 5, euclid_q1 11\); they don't overlap")


def test_a_survey_that_covers_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill_store(small_config(), {"rubin": range(5), "euclid_q1": ()})
    message = refused(small_config(), "surveys.euclid_q1: covers none of the 16 patches")
    assert "problems.ecsv" in message


def test_another_survey_leaves_the_groups_alone(store):
    publish(small_config())
    before = group_bytes(store)
    archive = {"kind": "simulated"}
    surveys = small_config().model_dump(mode="json")["surveys"]
    surveys["hst"] = {"bands": ["F814W"], "pixel_arcsec": 0.05, "archive": archive}
    config = small_config(surveys=surveys)
    planes = [realistic_planes(row, 1, 128) for row in range(16)]
    attributes = {"hash": group_hash(config, "hst", cells(config)[0])}
    write_group(store / "field/hst", planes, ["F814W"], 128, attributes=attributes)
    publish(config)
    assert open_store(store).surveys == ["euclid_q1", "hst", "rubin"]
    assert before.items() <= group_bytes(store).items()

    # Taken out of the config again, it lies there unused.
    publish(small_config())
    opened = open_store(store)
    assert opened.surveys == ["euclid_q1", "rubin"]
    root = json.loads((store / "zarr.json").read_text())
    assert not [key for key in root["consolidated_metadata"]["metadata"] if "hst" in key]


def test_coarse_surveys_are_warned_about(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    surveys = small_config().model_dump(mode="json")["surveys"]
    surveys["rubin"]["pixel_arcsec"] = 0.8
    config = small_config(surveys=surveys)
    fill_store(config)
    publish(config)
    assert "rubin: a token of 1.6″ is only 2 pixels of 0.8″" in caplog.text


def assert_splits_are_apart(sky_cells, split):
    for cell in sky_cells:
        numbers = split[cell.name]
        apart = np.abs(cell.centres[:, None] - cell.centres[None]).max(axis=2) - cell.patch_arcsec
        different = (numbers[:, None] != numbers[None]) & (numbers[:, None] * numbers[None] > 0)
        assert (apart[different] >= 3.0 - 1e-6).all()
    for one, other in itertools.combinations(sky_cells, 2):
        assert_cells_are_apart(one, other, split)


def assert_cells_are_apart(one: Cell, other: Cell, split):
    # Footprints are at least their centres' distance less two half diagonals apart; closer ones
    # are held to the same test by their corners and edges, sampled densely on the sky.
    first, second = (_unit_vectors(cell, cell.centres) for cell in (one, other))
    diagonal = np.sqrt(2) * one.patch_arcsec
    near = _separation(first[:, None], second[None]) < diagonal + 3.0
    a, b = split[one.name], split[other.name]
    near &= (a[:, None] != b[None]) & (a[:, None] * b[None] > 0)
    for i, j in np.argwhere(near):
        edges = [
            _unit_vectors(cell, cell.centres[row] + _outline(cell.patch_arcsec))
            for cell, row in ((one, i), (other, j))
        ]
        assert _separation(edges[0][:, None], edges[1][None]).min() >= 3.0 - 0.2


def _outline(side):
    along = np.linspace(-0.5, 0.5, 27) * side
    half = np.full_like(along, side / 2)
    edges = [(along, half), (along, -half), (half, along), (-half, along)]
    return np.concatenate([np.stack(edge, axis=1) for edge in edges])


def _unit_vectors(cell, positions):
    ra, dec = plane_radec(cell, positions[:, 0], positions[:, 1])
    return SkyCoord(ra, dec, unit="deg").cartesian.xyz.value.T


def _separation(first, second):
    return np.linalg.norm(first - second, axis=-1) * 180 / np.pi * 3600


@settings(max_examples=25, deadline=None)
@given(
    width=st.floats(1, 9),
    height=st.floats(1, 9),
    patch=st.sampled_from([25.6, 51.2]),
    test=st.floats(0, 0.5),
    validation=st.floats(0, 0.4),
    seed=st.integers(0, 5),
    dec=st.floats(-80, 80),
)
def test_no_sky_is_in_two_splits(width, height, patch, test, validation, seed, dec):
    config = small_config(
        sky={"ra": 10.0, "dec": dec, "width_arcmin": width, "height_arcmin": height},
        patch={"arcsec": patch},
        split={"test": test, "validation": validation, "seed": seed},
    )
    sky_cells = cells(config)
    assert_splits_are_apart(sky_cells, splits(config, sky_cells))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 20), dec=st.floats(-60, 60), order=st.sampled_from([8, 9]))
def test_no_sky_is_in_two_splits_of_many_cells(seed, dec, order):
    # Stripes within each of a few cells of 14 arcmin, or whole ones of many of 7 arcmin.
    config = small_config(
        sky={"ra": 10.0, "dec": dec, "width_arcmin": 32, "height_arcmin": 32},
        cell_order=order,
        patch={"arcsec": 51.2},
        split={"test": 0.3, "validation": 0.3, "seed": seed},
    )
    sky_cells = cells(config)
    assert len(sky_cells) > 5
    assert_splits_are_apart(sky_cells, splits(config, sky_cells))


@settings(max_examples=10, deadline=None)
@given(dx=st.floats(-3, 3), dy=st.floats(-3, 3), size=st.floats(0.5, 4))
def test_no_sky_is_in_two_splits_with_a_held_out_region(dx, dy, size):
    region = {"ra": 10 + dx / 60, "dec": dy / 60, "width_arcmin": size, "height_arcmin": size}
    config = small_config(
        sky={"ra": 10.0, "dec": 0.0, "width_arcmin": 8, "height_arcmin": 8},
        patch={"arcsec": 25.6},
        split={"test": [region], "validation": 0.2, "seed": 1},
    )
    sky_cells = cells(config)
    split = splits(config, sky_cells)
    assert_splits_are_apart(sky_cells, split)


def test_receipts_of_blocks_are_compared(store, monkeypatch):
    monkeypatch.setattr("jaisp.blocks.MOST_JOBS", 1)
    config = small_config()
    checksums = {name: folder_sha256(store / "field" / name) for name in config.surveys}
    for name, told in checksums.items():
        receipt = {"cell": "field", "survey": name, "sha256": told}
        write_receipt(config, "warp", f"field.{name}", receipt)
    receipt = publish(config, threads=3)
    assert {n: receipt["groups"][f"field/{n}"]["sha256"] for n in checksums} == checksums
    chunk = next(p for p in (store / "field/rubin/noise/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    refused(config, "field/rubin: not the bytes that its warp.s receipt tells of")


def test_a_store_of_many_cells_is_read_without_metadata_in_its_root(store, monkeypatch):
    publish(small_config())
    before = open_store(store)[3]["rubin"].flux
    monkeypatch.setattr("jaisp.store.publish.MOST_CONSOLIDATED", 0)
    publish(small_config())
    assert "consolidated_metadata" not in json.loads((store / "zarr.json").read_text())
    np.testing.assert_array_equal(open_store(store)[3]["rubin"].flux, before)
    assert zarr.open_group(store, mode="r")["field/rubin/flux"].shape[0] == 16
    dataset = xarray.open_zarr(store, group="field/rubin", consolidated=False)
    assert dataset.sizes["patch"] == 16


def test_the_index_is_the_same_in_chunks(store, monkeypatch):
    publish(small_config())
    whole = open_store(store).index
    columns = ("cell", "row", "ra", "dec", "x", "y", "split")
    expected = {name: getattr(whole, name) for name in columns}
    for chunk in (1, 5, 16, 100):
        monkeypatch.setattr("jaisp.store.publish.CHUNK", chunk)
        publish(small_config())
        index = open_store(store).index
        assert index._array("ra").chunks == (min(chunk, 16),)
        for name in columns[1:]:
            np.testing.assert_array_equal(index.part(name, 3, 12), expected[name][3:12])
        assert [index.cell_of(number) for number in (0, 15)] == ["field", "field"]
        for name in columns:
            np.testing.assert_array_equal(getattr(index, name), expected[name])


def test_a_patch_is_read_without_the_whole_index(store, monkeypatch):
    monkeypatch.setattr("jaisp.store.publish.CHUNK", 4)
    publish(small_config())

    def refuse(self, name):
        raise AssertionError(f"all of {name} was read")

    monkeypatch.setattr(Index, "_whole", refuse)
    monkeypatch.setattr("jaisp.store.index.MOST_CHUNKS", 2)
    opened = pickle.loads(pickle.dumps(open_store(store)))
    patch = opened[9]
    assert (patch.name, patch.split) == (opened["field/9"].name, opened["field/9"].split)
    assert np.isfinite(patch["rubin"].wcs.wcs.crval).all()
    assert len(opened.index._chunks) <= 2
    with pytest.raises(AssertionError, match="all of ra"):
        opened.index.ra  # noqa: B018


def test_an_index_that_tells_of_other_cells_is_damaged(store):
    publish(small_config())
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["cells"]["other"] = {"ra": 0.0, "dec": 0.0}
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(UserError, match=r"index: damaged; publish the store again"):
        open_store(store)[0].cell  # noqa: B018
