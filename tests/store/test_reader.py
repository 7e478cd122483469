"""Opening a published store."""

import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import xarray
import zarr

import jaisp
from jaisp.errors import UserError
from jaisp.sky import plane_radec
from jaisp.store.publish import publish
from jaisp.store.reader import open_store
from tests.store.groups import SURVEYS, fill_store, realistic_planes, small_config

COVERED = {"rubin": range(10), "euclid_q1": range(5, 15)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = small_config()
        path = fill_store(config, COVERED)
        publish(config)
        yield open_store(path)


def test_what_the_store_says_of_itself(store):
    assert jaisp.open(store.path).surveys == ["euclid_q1", "rubin"]
    assert store.cells == ["field"]
    assert len(store) == 16
    assert (store.patch_arcsec, store.token_arcsec) == (6.4, 1.6)
    assert store.bands("rubin") == ["g", "r"]
    assert store.grid_arcsec("euclid_q1") == pytest.approx(0.1)
    assert store.pixels_per_token("rubin") == 8
    assert store.noise_correlation("field", "rubin").shape == (2, 2)
    assert store.attributes("field", "rubin")["tiles"] == ["b", "a"]
    assert "16 patches of 6.4″ in 1 cell(s)" in repr(store)
    assert "euclid_q1: VIS J H at 0.1″ a pixel" in repr(store)


def test_a_patch_knows_its_place(store):
    patch = store[7]
    assert (patch.name, patch.cell, patch.row, patch.number) == ("field/7", "field", 7, 7)
    assert store["field/7"].number == 7
    assert store[-1].number == 15
    assert [p.number for p in store] == list(range(16))
    ra, dec = plane_radec(store.cell("field"), np.array([patch.x]), np.array([patch.y]))
    assert (patch.ra, patch.dec) == pytest.approx((ra[0], dec[0]), abs=1e-10)
    assert patch.split in ("none", "train", "validation", "test")
    assert patch.name in repr(patch)


def test_coverage_decides_which_surveys_a_patch_has(store):
    assert store[2].surveys == ["rubin"]
    assert store[7].surveys == ["euclid_q1", "rubin"]
    assert store[15].surveys == []
    assert "rubin" in store[9]
    assert "rubin" not in store[10]
    assert "hst" not in store[9]
    assert np.flatnonzero(store.coverage("rubin").any(axis=1)).tolist() == list(range(10))
    with pytest.raises(KeyError, match="does not cover patch field/2; rubin does"):
        store[2]["euclid_q1"]


def test_a_view_is_what_was_written(store):
    view = store[7]["euclid_q1"]
    planes = realistic_planes(107, 3, 64)
    assert view.flux.dtype == view.noise.dtype == np.float32
    assert view.flux.shape == (3, 64, 64)
    assert np.array_equal(np.isnan(view.flux), np.isnan(planes.flux))
    assert np.nanmax(np.abs(view.flux - planes.flux)[planes.flux < 1000]) < 20 / 16 * 1.1
    assert np.allclose(
        view.noise, np.where(planes.noise > 0, planes.noise, np.nan), rtol=0.022, equal_nan=True
    )
    assert np.array_equal(view.mask, planes.mask)
    assert view.bands == SURVEYS["euclid_q1"][0]
    assert view.coverage.shape == view.psf_fwhm_arcsec.shape == (3,)
    assert view.psf is None


def test_a_float32_store_gives_the_fluxes_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small_config(store={"flux": "float32"})
    path = fill_store(config, COVERED)
    publish(config)
    view = open_store(path)[7]["rubin"]
    assert np.array_equal(view.flux, realistic_planes(7, 2, 32).flux, equal_nan=True)


def test_a_views_wcs_is_centred_on_the_patch(store):
    for survey, pixels in (("rubin", 32), ("euclid_q1", 64)):
        patch = store[7]
        wcs = patch[survey].wcs
        assert wcs.array_shape == (pixels, pixels)
        middle = (pixels - 1) / 2
        assert wcs.pixel_to_world_values(middle, middle) == pytest.approx((patch.ra, patch.dec))


def test_splits_partition_the_patches(store):
    parts = [store.where(name) for name in ("none", "train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == list(store.where(None)) == list(range(16))
    with pytest.raises(KeyError, match="no split 'tests'; the splits are none, train"):
        store.where("tests")


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (16, IndexError, "patch 16: the store holds 16 patches"),
        (-17, IndexError, "holds 16 patches"),
        ("field/16", KeyError, "no patch 'field/16'; field has rows 0 to 15"),
        ("field/x", KeyError, "no patch 'field/x'"),
        ("north/1", KeyError, "no cell 'north'; the store holds field"),
        ("7", KeyError, "no cell ''"),
    ],
)
def test_unknown_patches_are_told(store, key, error, message):
    with pytest.raises(error, match=message):
        store[key]


def test_unknown_surveys_are_told(store):
    with pytest.raises(KeyError, match="no survey 'hst'; the store holds euclid_q1, rubin"):
        store.bands("hst")


def test_a_store_survives_pickling_after_use(store):
    assert np.nansum(store[7]["rubin"].flux) != 0
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again[7]["rubin"].flux, store[7]["rubin"].flux, equal_nan=True)


def test_a_store_works_in_a_worker(store):
    expected = store[7]["rubin"].mask.sum()
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(_mask_sum, (store, 7)) == expected


def _mask_sum(store, number):
    return store[number]["rubin"].mask.sum()


def test_reading_a_patch_reads_only_its_own_chunks(store, tmp_path):
    path = tmp_path / "copy.zarr"
    shutil.copytree(store.path, path)
    shard = path / "field/euclid_q1/flux/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[10:40] = bytes(30)  # the first chunk: another patch
    shard.write_bytes(content)
    copy = open_store(path)
    damaged = [n for n in range(5, 15) if not _readable(copy[n])]
    assert len(damaged) == 1


def _readable(patch):
    try:
        return np.isfinite(patch["euclid_q1"].flux).any()
    except UserError:
        return False


@pytest.mark.parametrize("gone", ["", "flux/c/0/0/0/0", "coverage", "zarr.json"])
def test_what_is_removed_after_publishing_is_told(store, tmp_path, gone):
    path = tmp_path / "copy.zarr"
    shutil.copytree(store.path, path)
    place = path / "field" / "euclid_q1" / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(
        UserError, match=r"euclid_q1.* since the store was published.*-R warp_batch"
    ):
        [patch.surveys for patch in open_store(path)]


def test_a_changed_byte_of_the_index_is_told(store, tmp_path):
    path = tmp_path / "copy.zarr"
    shutil.copytree(store.path, path)
    chunk = path / "index" / "x" / "c" / "0"
    content = bytearray(chunk.read_bytes())
    content[-6] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(UserError, match=r"index: damaged.*snakemake -f publish"):
        open_store(path).cell("field")


def test_what_is_not_a_published_store_is_told(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_store(tmp_path / "none")
    with pytest.raises(UserError, match="not a published patch store"):
        open_store(tmp_path)
    zarr.create_group(tmp_path / "group.zarr", attributes={"published": False})
    with pytest.raises(UserError, match="snakemake publish"):
        open_store(tmp_path / "group.zarr")


def test_zarr_and_xarray_open_a_published_store(store):
    root = zarr.open_consolidated(store.path)
    assert sorted(root.group_keys()) == ["field", "index"]
    assert root["field/rubin/flux"].shape == (16, 2, 32, 32)
    assert root["field"].attrs["ra"] == 53.1
    index = xarray.open_zarr(store.path, group="index", chunks=None)
    assert index.cell.values[3] == "field"
    assert index.sizes == {"patch": 16}
    group = xarray.open_zarr(store.path, group="field/rubin", chunks=None)
    assert group.flux.dims == ("patch", "band", "y", "x")
    tree = xarray.open_datatree(store.path, engine="zarr", chunks=None)
    assert "field/euclid_q1" in [node.path.strip("/") for node in tree.subtree]
