"""The stage: a cell's patches of one survey in the store."""

from dataclasses import replace

import numpy as np
import pytest
import zarr
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.archives.tile import Plane
from jaisp.config import group_hash, parse_config
from jaisp.errors import UserError
from jaisp.files import read_problems, sha256
from jaisp.sky import cells, plane_wcs
from jaisp.store.codes import decode_flux, decode_noise
from jaisp.store.layout import Flag
from jaisp.warp import warp
from tests.configs import small_config, survey
from tests.warp.images import gaussians, tan_wcs, write_tile

SIZE, PIXEL = 200, 0.2


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two by two patches of 12.8″; survey `wide` in bands g and r."""
    monkeypatch.chdir(tmp_path)
    content = small_config()
    content["sky"] |= {"width_arcmin": 25.6 / 60, "height_arcmin": 25.6 / 60}
    content["surveys"]["wide"] = survey("wide", PIXEL) | {"bands": ["g", "r"]}
    return parse_config(content, tmp_path / "config.yaml")


@pytest.fixture
def star():
    """A star at the corner where the four patches meet, in noise."""
    noise = np.random.default_rng(0).normal(0, 1.0, (SIZE, SIZE))
    return (gaussians((SIZE, SIZE), [99.5], [99.5], 4.0, 5000.0) + noise).astype(np.float32)


@pytest.fixture
def run(config, monkeypatch):
    """Warp survey `wide` from these tiles; gives the receipt and the group."""

    def go(tiles, **options):
        tiles = [replace(tile, survey="wide") for tile in tiles]
        monkeypatch.setattr("jaisp.warp.cell.read_tiles", lambda config, fetched: tiles)
        receipt = warp(config, cells(config)[0], "wide", **options)
        return receipt, zarr.open_group(config.results / "patches.zarr/field/wide", mode="r")

    return go


def tiles_of(folder, flux, **changes):
    ones = np.ones(flux.shape, np.float32)
    return [
        write_tile(folder / f"{band}.fits", flux, tan_wcs(angle=5), ones, band=band, **changes)
        for band in "gr"
    ]


def mosaic(group, band: int) -> np.ndarray:
    flux = decode_flux(group["flux"][:, band], group["scale"][:, band])
    return np.block([[flux[0], flux[1]], [flux[2], flux[3]]])


def test_a_group_holds_the_sky(config, run, star, tmp_path):
    receipt, group = run(tiles_of(tmp_path, star, zeropoint=28.9))
    assert receipt["covered"] == receipt["patches"] == 4
    assert receipt["hash"] == group_hash(config, "wide", cells(config)[0])
    assert [tile["id"] for tile in receipt["tiles"]] == ["g", "r"]
    assert group["flux"].shape == (4, 2, 64, 64)
    for band in (0, 1):
        # Four patches that abut hold the star once.
        image = mosaic(group, band)
        assert image[52:76, 52:76].sum() == pytest.approx(50_000, rel=0.02)
        y, x = np.unravel_index(np.argmax(image), image.shape)
        assert {int(x), int(y)} <= {63, 64}
    noise = decode_noise(group["noise"][...], group["noise_scale"][...])
    np.testing.assert_allclose(noise, 10.0, rtol=0.03)
    assert not group["mask"][...].any()
    np.testing.assert_array_equal(group["coverage"][...], 1.0)
    np.testing.assert_allclose(group["psf_fwhm_arcsec"][...], 0.7)


def test_attributes_say_where_it_comes_from(run, star, tmp_path):
    tiles = [
        replace(tile, science=replace(tile.science, sha256=sha256(tile.science.path)))
        for tile in tiles_of(tmp_path, star)
    ]
    _, group = run(tiles)
    attributes = dict(group.attrs)
    assert attributes["bands"] == ["g", "r"]
    assert attributes["units"] == "nJy"
    assert attributes["grid_arcsec"] == pytest.approx(0.2)
    assert attributes["noise_includes_sources"] == {"g": False, "r": False}
    assert attributes["psf_source"] == {"g": ["given"], "r": ["given"]}
    assert attributes["tiles"][0]["sha256"]["science"] == tiles[0].science.sha256
    assert attributes["tiles"][1]["zeropoint"] == 31.4
    plane = WCS(fits.Header(attributes["cell"]))
    assert plane.wcs.crpix.tolist() == [64.5, 64.5]
    assert "/" not in str({k: v for k, v in attributes.items() if k != "cell"}).replace("1/", "")
    for path in group.store.root.rglob("zarr.json"):
        assert str(tmp_path) not in path.read_text()


def test_the_same_tiles_give_the_same_bytes_anywhere(config, run, star, tmp_path):
    receipts = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        receipts.append(run(tiles_of(tmp_path / place, star))[0])
        for note in (config.results / ".groups").glob("*"):
            note.unlink()
    assert receipts[0] == receipts[1]


def test_a_bad_tile_is_set_aside_and_the_rest_goes_on(config, run, star, tmp_path):
    good_g, good_r = tiles_of(tmp_path, star)
    data = (tmp_path / "r.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(data[: len(data) // 3])
    cut = replace(good_r, id="cut", science=Plane(tmp_path / "cut.fits", 0))
    keyless = replace(good_r, id="keyless", zeropoint="MAGZERO")
    receipt, group = run([good_g, cut, keyless])
    assert receipt["covered"] == 4
    assert (group["coverage"][:, 0] == 1).all()
    assert (group["coverage"][:, 1] == 0).all()
    assert (group["mask"][:, 1] == Flag.EDGE).all()
    assert np.isnan(mosaic(group, 1)).all()
    assert np.isnan(group["psf_fwhm_arcsec"][:, 1]).all()
    problems = {p["tile"]: p for p in read_problems(config)}
    assert problems["cut"]["band"] == "r"
    assert "truncated" in problems["cut"]["reason"]
    assert "no key MAGZERO" in problems["keyless"]["reason"]
    for tile in (cut, keyless):
        with pytest.raises(UserError, match=f"wide r {tile.id}: "):
            run([good_g, tile], strict=True)


def test_tiles_beyond_the_limit_of_open_files(config, run, star, tmp_path, monkeypatch):
    tiles = tiles_of(tmp_path, star)
    expected, _ = run(tiles)
    for note in (config.results / ".groups").glob("*"):
        note.unlink()
    monkeypatch.setattr("jaisp.warp.cell.MOST_OPEN", 0)
    assert run(tiles)[0] == expected


def test_damage_that_shows_only_when_read(config, run, star, tmp_path):
    good_g, good_r = tiles_of(tmp_path, star)
    hdu = fits.CompImageHDU(star, tan_wcs().to_header(), compression_type="GZIP_1")
    hdu.writeto(tmp_path / "c.fits")
    data = bytearray((tmp_path / "c.fits").read_bytes())
    data[-60_000:] = bytes(60_000)
    (tmp_path / "c.fits").write_bytes(data)
    damaged = replace(good_r, id="damaged", science=Plane(tmp_path / "c.fits", 1))
    _, group = run([good_g, good_r, damaged])
    assert (group["coverage"][...] == 1).all()
    assert [p["tile"] for p in read_problems(config)] == ["damaged"]


def test_sky_without_tiles_is_uncovered(run, star, tmp_path):
    far = write_tile(tmp_path / "far.fits", star, tan_wcs(151.0, 2.0), np.ones_like(star), band="r")
    antipode = write_tile(
        tmp_path / "anti.fits", star, tan_wcs(330.0, -2.0), np.ones_like(star), band="r"
    )
    receipt, group = run([far, antipode])
    assert receipt["covered"] == 0
    assert receipt["tiles"] == []
    assert not group["coverage"][...].any()


def test_a_tile_over_part_of_the_cell(run, star, tmp_path):
    part = tan_wcs()
    part.wcs.crpix = [-5.5, 100.5]  # its first column lies a little west of the centre
    tile = write_tile(tmp_path / "p.fits", star, part, np.ones_like(star), band="r")
    receipt, group = run([tile])
    coverage = group["coverage"][:, 1].reshape(2, 2)
    assert receipt["covered"] == 2
    assert (coverage[:, 0] == 0).all()
    assert ((coverage[:, 1] > 0.7) & (coverage[:, 1] < 1)).all()


def test_uncalibrated_bands_say_so(run, star, tmp_path):
    _, group = run(tiles_of(tmp_path, star, zeropoint=None))
    assert group.attrs["units"] == "uncalibrated"
    assert group.attrs["uncalibrated_bands"] == ["g", "r"]
    assert mosaic(group, 0)[52:76, 52:76].sum() == pytest.approx(5000, rel=0.02)


def test_psf_stamps_are_kept_on_their_own_pixels(run, star, tmp_path):
    g, r = tiles_of(tmp_path, star)
    fits.writeto(tmp_path / "psf.fits", gaussians((15, 15), [7.0], [7.0], 3.0, 9.0))
    _, group = run([replace(g, psf=Plane(tmp_path / "psf.fits", 0)), r])
    stamps = group["psf"][...]
    assert stamps.shape == (4, 2, 15, 15)
    np.testing.assert_allclose(stamps[:, 0].sum(axis=(1, 2)), 1.0, rtol=1e-5)
    assert np.isnan(stamps[:, 1]).all()
    assert group.attrs["psf_pixel_arcsec"]["g"] == pytest.approx(0.2)
    np.testing.assert_allclose(group["psf_fwhm_arcsec"][:, 0], 0.6, rtol=0.02)


def test_source_noise_is_taken_out_and_noted(run, tmp_path):
    rng = np.random.default_rng(1)
    sky = gaussians((SIZE, SIZE), *rng.uniform(20, 180, (2, 20)), 4.0, 50_000.0)
    flux = (sky + rng.normal(0, 10, sky.shape)).astype(np.float32)
    noise = np.sqrt(100 + sky).astype(np.float32)
    tile = write_tile(tmp_path / "r.fits", flux, tan_wcs(), noise, band="r")
    _, group = run([tile])
    assert group.attrs["noise_includes_sources"] == {"g": False, "r": True}
    stored = decode_noise(group["noise"][:, 1], group["noise_scale"][:, 1])
    assert noise.max() > 50
    np.testing.assert_allclose(stored, 10.0, rtol=0.1)


@pytest.mark.parametrize("kernel", ["lanczos5", "bicubic", "exact"])
def test_every_kernel_makes_a_group(config, monkeypatch, star, tmp_path, kernel):
    tiles = [replace(tile, survey="wide") for tile in tiles_of(tmp_path, star)]
    monkeypatch.setattr("jaisp.warp.cell.read_tiles", lambda config, fetched: tiles)
    chosen = config.model_copy(update={"warp": config.warp.model_copy(update={"kernel": kernel})})
    assert warp(chosen, cells(chosen)[0], "wide")["covered"] == 4
    group = zarr.open_group(chosen.results / "patches.zarr/field/wide", mode="r")
    assert group.attrs["kernel"] == kernel
    assert mosaic(group, 0)[52:76, 52:76].sum() == pytest.approx(5000, rel=0.02)


def test_patches_are_windows_of_one_plane(config, run, star, tmp_path):
    """The four patches, laid side by side, are the cell resampled at once."""
    from jaisp.warp.pixel_map import pixel_map
    from jaisp.warp.planes import warp_tile
    from tests.warp.images import open_tile

    tiles = tiles_of(tmp_path, star)
    _, group = run(tiles)
    reader = open_tile(tiles[0])
    plane = plane_wcs(cells(config)[0], 0.2, -12.8, -12.8, (128, 128))
    whole = warp_tile(reader, plane, pixel_map(plane, (128, 128), reader.wcs),
                      "lanczos3")  # fmt: skip
    step = np.abs(group["scale"][:, 0]).max()
    np.testing.assert_allclose(mosaic(group, 0), whole.flux, atol=0.6 * step, rtol=3e-4)
