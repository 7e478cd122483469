"""Matched views: the planes of the store, on the same sky, however they are loaded."""

import pickle
import shutil

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader, default_collate

from jaisp.errors import UserError
from jaisp.store import batches
from jaisp.store.batches import (
    AHEAD,
    Batches,
    collate,
    decode,
    decode_planes,
    look_up,
    worker_options,
)
from jaisp.store.dataset import MatchedViews
from jaisp.store.publish import publish
from jaisp.store.reader import open_store
from jaisp.store.writer import PatchPlanes
from tests.store.groups import SURVEYS, fill_store, small_config, write_group

COVERED = {"rubin": range(10), "euclid_q1": range(5, 15)}
BOTH = list(range(5, 10))


@pytest.fixture(scope="module", params=["int16", "float32"])
def store(request, tmp_path_factory):
    return made_store(tmp_path_factory.mktemp("store"), flux=request.param)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    return made_store(tmp_path_factory.mktemp("coded"), flux="int16")


def made_store(folder, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = small_config(store=options)
        path = fill_store(config, COVERED)
        publish(config)
        return open_store(path)


def equal(one, other):
    """Nested dicts of equal tensors."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return torch.equal(one, other)


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
def test_decoded_planes_are_those_of_the_views(store, memory_gib):
    views = MatchedViews(store, memory_gib=memory_gib)
    assert views.resident == (memory_gib > 0)
    assert views.numbers.tolist() == BOTH
    batch = decode(collate(views.__getitems__([3, 0])))
    assert batch["patch"].tolist() == [8, 5]
    for k, number in enumerate((8, 5)):
        assert (batch["ra"][k], batch["dec"][k]) == (store[number].ra, store[number].dec)
        for survey in SURVEYS:
            shown, view = batch["views"][survey], store[number][survey]
            np.testing.assert_array_equal(shown["flux"][k], view.flux)
            np.testing.assert_array_equal(shown["noise"][k], view.noise)
            np.testing.assert_array_equal(shown["mask"][k], view.mask)
    assert batch["views"]["rubin"]["flux"].isnan().any()


def test_codes_travel_and_are_left_as_they_are(coded):
    sample = MatchedViews(coded)[0]
    types = {name: tensor.dtype for name, tensor in sample["views"]["rubin"].items()}
    small = {"flux": torch.int16, "noise": torch.uint8, "mask": torch.uint8}
    assert types == {**small, "scale": torch.float32, "noise_scale": torch.float32}
    batch = default_collate([sample])
    before = batch["views"]["rubin"]["flux"].clone()
    decode(batch)
    assert torch.equal(batch["views"]["rubin"]["flux"], before)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8])
def test_a_gpus_way_to_decode_is_the_processors(dtype):
    """The torch operations that other devices run, on every code."""
    every = torch.arange(65536, dtype=torch.int32).to(dtype).view(2, 2, 128, 128)
    scale = torch.tensor([[1.0, 2.0], [0.5, 3.0]])
    table = batches._table(dtype, torch.device("cpu"))
    expected = decode_planes(every, scale)
    torch.testing.assert_close(look_up(every, scale, table), expected, equal_nan=True)
    assert expected.isnan().any()
    assert expected.unique().numel() > 200


def test_bands_and_planes_are_chosen(coded):
    views = MatchedViews(coded, bands={"euclid_q1": ["H", "VIS"]}, planes=["flux"])
    sample = decode(collate([views[1]]))["views"]
    assert set(sample["rubin"]) == {"flux"}
    expected = coded[6]["euclid_q1"].flux[[2, 0]]
    np.testing.assert_array_equal(sample["euclid_q1"]["flux"][0], expected)
    assert MatchedViews(coded, surveys=["rubin"]).numbers.tolist() == list(range(10))


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
def test_crops_are_the_patchs_own_pixels_and_kept_ones_the_same(coded, memory_gib):
    views = MatchedViews(coded, crop_arcsec=2.4, seed=3, memory_gib=memory_gib)
    assert views.step_arcsec == pytest.approx(0.2)
    for sample in views.__getitems__(range(5)):
        patch = coded[int(sample["patch"])]
        for survey, pixels in (("rubin", 12), ("euclid_q1", 24)):
            flux = decode(collate([sample]))["views"][survey]["flux"][0]
            assert flux.shape[1:] == (pixels, pixels)
            # Where the WCS of the whole patch says that the crop's centre is.
            view = patch[survey]
            x, y = view.wcs.world_to_pixel_values(sample["ra"].item(), sample["dec"].item())
            left, low = round(float(x) - (pixels - 1) / 2), round(float(y) - (pixels - 1) / 2)
            window = view.flux[:, low : low + pixels, left : left + pixels]
            np.testing.assert_array_equal(flux, window)
            assert sample["x"] - patch.x == pytest.approx(
                (left + pixels / 2) * view.grid_arcsec - 3.2, abs=1e-6
            )


def test_crops_of_all_surveys_show_the_same_sky(tmp_path, monkeypatch):
    """A star a survey's sky is dark but for: at the same ra and dec in the crops of both."""
    monkeypatch.chdir(tmp_path)
    config = small_config()
    path = fill_store(config)
    dx, dy = 0.7, -0.5  # arcsec from the patches' centres
    for name, survey in config.surveys.items():
        pixels, (_, grid) = config.patch_pixels(name), config.grid(name)
        axis = (np.arange(pixels) - (pixels - 1) / 2) * grid
        star = np.exp(-((axis[None] - dx) ** 2 + (axis[:, None] - dy) ** 2) / 0.08)
        noise = np.ones((len(survey.bands), pixels, pixels), np.float32)
        planes = PatchPlanes(
            (1000 * star * noise).astype(np.float32),
            noise,
            np.zeros(noise.shape, np.uint8),
            noise[:, 0, 0],
        )
        attributes = {"hash": zarr.open_group(path / "field" / name, mode="r").attrs["hash"]}
        write_group(
            path / "field" / name, [planes] * 16, survey.bands, pixels, attributes=attributes
        )
    publish(config)
    store = open_store(path)
    views = MatchedViews(store, crop_arcsec=4.8, seed=1)
    corners = set()
    for sample in views.__getitems__(range(16)):
        patch = store[int(sample["patch"])]
        expected = np.array([patch.x + dx, patch.y + dy])
        corners.add((float(sample["x"] - patch.x), float(sample["y"] - patch.y)))
        shown = decode(collate([sample]))["views"]
        for survey in SURVEYS:
            flux = shown[survey]["flux"][0, 0].double().numpy()
            grid = store.grid_arcsec(survey)
            middle = (flux.shape[0] - 1) / 2
            y, x = ((np.mgrid[: len(flux), : len(flux)] - middle) * flux).sum((1, 2)) / flux.sum()
            centre = np.array([sample["x"], sample["y"]])
            np.testing.assert_allclose(centre + np.array([x, y]) * grid, expected, atol=0.02)
    assert len(corners) > 8


def test_crops_come_from_seed_epoch_and_place(coded):
    views = MatchedViews(coded, crop_arcsec=1.6, seed=1)
    first = views.__getitems__([0, 1, 2, 3])
    assert equal(views[2], first[2])
    views.set_epoch(1)
    assert not all(equal(views[k]["x"], first[k]["x"]) for k in range(4))
    views.set_epoch(0)
    assert equal(collate(views.__getitems__([0, 1, 2, 3])), collate(first))
    assert equal(pickle.loads(pickle.dumps(views))[2], first[2])


def test_workers_load_what_this_process_loads_in_every_epoch(coded):
    def epochs(workers, **options):
        views = MatchedViews(coded, crop_arcsec=1.6, seed=1, **options)
        loader = Batches(views, 2, workers=workers)
        assert len(loader) == 3
        for epoch in range(2):
            views.set_epoch(epoch)
            yield list(loader)

    here, kept, there = epochs(0), epochs(0, memory_gib=1.0), epochs(2)
    seen = []
    for own, memory, worker in zip(here, kept, there, strict=True):
        assert len(own) == len(memory) == len(worker) == 3
        for one, second, third in zip(own, memory, worker, strict=True):
            assert equal(one, second)
            assert equal(one, third)
        seen.append(torch.cat([batch["x"] for batch in own]))
    assert not torch.equal(*seen)


def test_torchs_own_loader_and_collation_will_do(coded):
    views = MatchedViews(coded)
    own = DataLoader(views, 5, collate_fn=default_collate)
    (batch,), (ours,) = list(own), list(Batches(views, 5))
    assert equal(batch, ours)


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
@pytest.mark.parametrize("crop_arcsec", [None, 3.2])
def test_batches_come_decoded_where_they_are_wanted(coded, memory_gib, crop_arcsec):
    views = MatchedViews(coded, crop_arcsec=crop_arcsec, memory_gib=memory_gib)
    given = list(Batches(views, 1, device="cpu"))
    assert len(given) == 5
    for batch, codes in zip(given, Batches(views, 1), strict=True):
        decoded = decode(codes)
        assert batch["ra"] == decoded["ra"]
        for survey in SURVEYS:
            for name, plane in decoded["views"][survey].items():
                torch.testing.assert_close(batch["views"][survey][name], plane, equal_nan=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_decoded_batches_stay_though_the_memory_of_their_codes_is_used_again(coded, workers):
    views = MatchedViews(coded, crop_arcsec=1.6, seed=2)
    order = [0, 1, 2, 3, 4, 2, 0, 1, 4, 3, 1, 0, 2, 4, 3, 1, 0]
    given = Batches(views, 2, sampler=order, workers=workers, device="cpu")
    for _ in range(2):
        expected = [decode(batch) for batch in Batches(views, 2, sampler=order)]
        found = list(given)
        assert len(found) == 9
        for batch, right in zip(found, expected, strict=True):
            for survey in SURVEYS:
                for name, plane in right["views"][survey].items():
                    torch.testing.assert_close(batch["views"][survey][name], plane, equal_nan=True)
    places = {b["views"]["rubin"]["mask"].data_ptr() for b in found}
    assert len(places) == 9
    if workers:
        # Three batches of memory in turn, for each survey's three planes.
        assert len(given._shared) == (AHEAD + 1) * 6


def test_batches_come_shuffled_and_whole(coded):
    views = MatchedViews(coded, memory_gib=1.0)
    torch.manual_seed(0)
    given = list(Batches(views, 2, shuffle=True, drop_last=True))
    numbers = torch.cat([batch["patch"] for batch in given]).tolist()
    assert len(numbers) == 4
    assert set(numbers) < set(BOTH)


def test_patches_in_memory_need_no_workers(coded):
    views = MatchedViews(coded, memory_gib=1.0)
    assert Batches(views, 2, workers=2)._loader is None
    assert not pickle.loads(pickle.dumps(views)).resident
    assert views.gib() == pytest.approx(5 * 4 * (2 * 32**2 + 3 * 64**2) / 2**30)
    assert worker_options(2)["multiprocessing_context"] == "forkserver"


def test_a_damaged_chunk_is_an_error_not_a_sample(coded, tmp_path):
    path = tmp_path / "copy.zarr"
    shutil.copytree(coded.path, path)
    shard = path / "field/euclid_q1/flux/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[10:40] = bytes(30)
    shard.write_bytes(content)
    with pytest.raises(UserError, match="field/euclid_q1/flux: damaged"):
        list(Batches(MatchedViews(open_store(path)), 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_arcsec": 0.3}, "crop_arcsec 0.3: must be a multiple of 0.2"),
        ({"crop_arcsec": 6.6}, "up to 6.4"),
        ({"bands": {"rubin": ["z"]}}, "bands of rubin: z; the store holds g, r"),
        ({"bands": {"rubin": []}}, "bands of rubin: none given"),
        ({"numbers": [0, 15]}, "no such patch is covered by euclid_q1, rubin"),
    ],
)
def test_what_can_not_be_shown_is_told(coded, options, message):
    with pytest.raises(UserError, match=message):
        MatchedViews(coded, **options)
