"""Writing groups: what comes back, size, determinism, who can open them."""

import warnings

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from jaisp.store import layout
from jaisp.store.codes import decode_flux, decode_noise
from jaisp.store.layout import Flag
from jaisp.store.writer import GroupWriter, PatchPlanes, withdraw
from tests.store.groups import realistic_planes, write_group

BANDS = ["g", "r"]


def files_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def three_rows():
    return [realistic_planes(1, 2, 32), None, realistic_planes(2, 2, 32, sigma=0.3)]


def test_what_was_written_comes_back(tmp_path, three_rows):
    write_group(tmp_path / "group", three_rows, BANDS, 32)
    group = zarr.open_group(tmp_path / "group", mode="r")
    for row in (0, 2):
        planes = three_rows[row]
        flux = decode_flux(group["flux"][row], group["scale"][row])
        noise = decode_noise(group["noise"][row], group["noise_scale"][row])
        valid = planes.noise > 0
        assert np.array_equal(np.isnan(flux), np.isnan(planes.flux))
        step = group["scale"][row][:, None, None] * np.sqrt(
            1 + (planes.flux / group["scale"][row][:, None, None] / 4096) ** 2
        )
        assert np.all((np.abs(flux - planes.flux) <= 0.51 * step)[valid])
        assert np.array_equal(np.isnan(noise), ~valid)
        assert np.allclose(noise[valid], planes.noise[valid], rtol=0.022)
        assert np.array_equal(group["mask"][row], planes.mask)
        background = np.percentile(planes.noise[0][valid[0]], 10)
        assert group["scale"][row][0] == pytest.approx(background / 8)
        assert group["coverage"][row] == pytest.approx(1 - 16 / 1024)
        assert group["psf_fwhm_arcsec"][row] == pytest.approx(0.7)
    assert group["noise_correlation"][...].shape == (2, 2)
    assert "psf" not in group


def test_an_uncovered_patch_has_no_bytes(tmp_path):
    write_group(tmp_path / "none", [None, None], BANDS, 32)
    assert not list((tmp_path / "none").glob("flux/c/**/*"))
    group = zarr.open_group(tmp_path / "none", mode="r")
    assert (group["flux"][...] == -32768).all()
    assert (group["noise"][...] == 0).all()
    assert (group["mask"][...] == Flag.EDGE).all()
    assert (group["coverage"][...] == 0).all()
    assert np.isnan(group["psf_fwhm_arcsec"][...]).all()

    one = realistic_planes(1, 2, 32)
    write_group(tmp_path / "one", [one], BANDS, 32)
    write_group(tmp_path / "many", [one, None, None, None], BANDS, 32)
    sizes = [(tmp_path / name / "flux/c/0/0/0/0").stat().st_size for name in ("one", "many")]
    assert sizes[1] - sizes[0] == 3 * 2 * 16  # the shard's index only


def test_a_band_without_valid_noise_is_uncovered(tmp_path):
    planes = realistic_planes(1, 2, 32)
    planes.noise[1] = np.nan
    write_group(tmp_path / "group", [planes], BANDS, 32)
    group = zarr.open_group(tmp_path / "group", mode="r")
    assert group["coverage"][0][0] > 0.9
    assert group["coverage"][0][1] == 0
    assert (group["flux"][0, 1] == -32768).all()


@pytest.mark.parametrize(
    ("flag", "counts"),
    [
        (Flag.BAD, False),
        (Flag.COSMIC_RAY, False),
        (Flag.EDGE, False),
        (Flag.SATURATED, True),
        (Flag.INTERPOLATED, True),
    ],
)
def test_coverage_counts_usable_pixels(tmp_path, flag, counts):
    planes = realistic_planes(1, 1, 16)
    planes.mask[0, 8:] |= np.uint8(flag)
    write_group(tmp_path / "group", [planes], ["g"], 16)
    coverage = zarr.open_group(tmp_path / "group", mode="r")["coverage"][0, 0]
    unusable = 4 + (0 if counts else 128)
    assert coverage == pytest.approx(1 - unusable / 256)


def test_what_is_too_bright_is_clipped_and_flagged(tmp_path):
    planes = realistic_planes(1, 1, 16)
    planes.flux[0, 9, 9] = 1e9
    write_group(tmp_path / "group", [planes], ["g"], 16)
    write_group(tmp_path / "float", [planes], ["g"], 16, flux_dtype="float32")
    group = zarr.open_group(tmp_path / "group", mode="r")
    assert group["flux"][0, 0, 9, 9] == 32767
    assert np.argwhere(group["mask"][0, 0] & Flag.CLIPPED).tolist() == [[9, 9]]
    exact = zarr.open_group(tmp_path / "float", mode="r")
    assert np.array_equal(exact["flux"][0], planes.flux, equal_nan=True)
    assert not (exact["mask"][0] & Flag.CLIPPED).any()


def test_psf_stamps_are_kept(tmp_path):
    stamp = np.random.default_rng(1).random((1, 5, 5), np.float32)
    plain = realistic_planes(1, 1, 16)
    planes = PatchPlanes(plain.flux, plain.noise, plain.mask, plain.psf_fwhm_arcsec, stamp)
    write_group(tmp_path / "group", [None, planes], ["g"], 16)
    psf = zarr.open_group(tmp_path / "group", mode="r")["psf"]
    assert np.isnan(psf[0]).all()
    assert np.array_equal(psf[1], stamp)


def test_the_same_input_gives_the_same_bytes(tmp_path, three_rows):
    options = {"attributes": {"z": 1, "a": {"y": 2, "b": 3}}}
    write_group(tmp_path / "first", three_rows, BANDS, 32, **options)
    with GroupWriter(
        tmp_path / "second", BANDS, 32, 3, 0.2, attributes={"a": {"b": 3, "y": 2}, "z": 1}
    ) as group:
        for row in (2, 0, 1):
            group.write(row, three_rows[row])
        group.finish(np.ones((2, 2), np.float32), {"tiles": ["b", "a"]})
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")


def test_a_group_a_quarter_of_float32(tmp_path):
    rows = [realistic_planes(row, 2, 256) for row in range(2)]
    write_group(tmp_path / "group", rows, BANDS, 256)
    names = ("flux", "noise", "mask")
    stored = sum(
        path.stat().st_size
        for n in names
        for path in (tmp_path / "group" / n / "c").rglob("0")
        if path.is_file()
    )
    assert stored <= 2 * 2 * 256**2 * 4 / 4


def test_shards_hold_whole_patches(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SHARD_BYTES", 2 * 2 * 16**2 * 2)
    rows = [realistic_planes(row, 2, 16) for row in range(5)]
    write_group(tmp_path / "group", rows, BANDS, 16)
    flux = zarr.open_group(tmp_path / "group", mode="r")["flux"]
    assert flux.shards == (2, 2, 16, 16)
    assert flux.chunks == (1, 1, 16, 16)
    assert len([p for p in (tmp_path / "group/flux/c").rglob("*") if p.is_file()]) == 3
    scale = zarr.open_group(tmp_path / "group", mode="r")["scale"]
    for row in range(5):
        stored = decode_flux(flux[row], scale[row])
        assert np.nanmax(np.abs(stored - rows[row].flux) / np.abs(rows[row].flux + 200)) < 0.05


def test_rows_out_of_place_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SHARD_BYTES", 2 * 2 * 16**2 * 2)
    planes = realistic_planes(1, 2, 16)
    group = GroupWriter(tmp_path / "group", BANDS, 16, 5, 0.2)
    group.write(1, planes)
    with pytest.raises(ValueError, match="written before"):
        group.write(1, planes)
    with pytest.raises(ValueError, match="outside"):
        group.write(5, planes)
    group.write(4, None)
    with pytest.raises(ValueError, match="already on disk"):
        group.write(0, planes)
    with pytest.raises(ValueError, match="the group holds patches of"):
        group.write(2, realistic_planes(1, 2, 8))
    with pytest.raises(ValueError, match="rows not written"):
        group.finish(np.ones((2, 2), np.float32))


def test_leaving_without_finish_is_an_error(tmp_path):
    with (
        pytest.raises(RuntimeError, match="finish"),
        GroupWriter(tmp_path / "group", BANDS, 16, 1, 0.2),
    ):
        pass


def test_a_killed_jobs_leftovers_are_removed(tmp_path, three_rows):
    write_group(tmp_path / "fresh", three_rows, BANDS, 32)
    left = tmp_path / "group" / "flux" / "c" / "7"
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"torn")
    write_group(tmp_path / "group", three_rows, BANDS, 32)
    assert files_of(tmp_path / "group") == files_of(tmp_path / "fresh")


def test_xarray_and_tensorstore_open_a_group(tmp_path, three_rows):
    write_group(tmp_path / "group", three_rows, BANDS, 32)
    expected = zarr.open_group(tmp_path / "group", mode="r")["flux"][...]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(tmp_path / "group", consolidated=False, chunks=None)
    assert data.flux.dims == ("patch", "band", "y", "x")
    assert data.coverage.dims == ("patch", "band")
    assert data.attrs["bands"] == BANDS
    assert np.array_equal(data.flux, expected)
    for name in ("flux", "noise", "mask", "scale", "noise_correlation"):
        location = {"driver": "file", "path": str(tmp_path / "group" / name)}
        array = tensorstore.open({"driver": "zarr3", "kvstore": location}).result()
        assert array.domain.labels[1:2] != ("",)
        if name == "flux":
            assert np.array_equal(array.read().result(), expected)


def test_a_withdrawn_store_has_no_root(tmp_path):
    (tmp_path / "zarr.json").write_text("{}")
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert not list(tmp_path.iterdir())
