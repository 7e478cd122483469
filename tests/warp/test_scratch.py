"""Packed planes are unpacked once, of the part that is needed, in memory or in a nameless file."""

import gzip
import lzma

import numpy as np
import pytest
from astropy.io import fits

from jaisp.archives.tile import Plane
from jaisp.errors import TileError
from jaisp.warp import fits_plane
from jaisp.warp.fits_plane import FitsPlane, open_fits
from jaisp.warp.scratch import Scratch

SHAPE = (300, 200)
PART = slice(70, 250), slice(30, 170)


@pytest.fixture
def pixels():
    return np.random.default_rng(1).normal(100, 20, SHAPE).astype(np.float32)


def packed(path, pixels, how):
    """A file of one plane; pixels as they come back from it."""
    if how == "rice":
        hdu = fits.CompImageHDU(pixels.astype(np.int32), compression_type="RICE_1")
        hdu.writeto(path)
        return Plane(path, 1), pixels.astype(np.int32)
    if how == "blocks":
        options = {"compression_type": "GZIP_2", "quantize_level": 0.0, "tile_shape": (64, 50)}
        fits.CompImageHDU(pixels, **options).writeto(path)
        return Plane(path, 1), pixels
    if how == "cube":
        cube = np.stack([pixels * 0, pixels])
        fits.writeto(path, cube)
        path.write_bytes(gzip.compress(path.read_bytes()))
        return Plane(path, 0, 1), pixels
    if how == "scaled":
        hdu = fits.PrimaryHDU(pixels.astype(np.int16))
        hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 10.0
        hdu.writeto(path)
        with fits.open(path) as hdus:
            pixels = hdus[0].data.astype(np.float32)
        path.write_bytes(gzip.compress(path.read_bytes()))
        return Plane(path, 0), pixels
    fits.writeto(path, pixels)
    packer = {"gzip": gzip, "xz": lzma}[how]
    path.write_bytes(packer.compress(path.read_bytes()))
    return Plane(path, 0), pixels


@pytest.mark.parametrize("memory", [0, 2**29])
@pytest.mark.parametrize("how", ["rice", "blocks", "gzip", "xz", "cube", "scaled"])
def test_the_needed_part_of_a_packed_plane(tmp_path, monkeypatch, pixels, how, memory):
    monkeypatch.setattr(fits_plane, "STRIP_BYTES", 2**14)  # several strips
    description, expected = packed(tmp_path / "t.fits", pixels, how)
    scratch = Scratch(tmp_path / "scratch", memory)
    (tmp_path / "scratch").mkdir()
    with open_fits(description.path) as hdus:
        plane = FitsPlane(hdus, description, scratch)
        plane.need(*PART)
        for rows, columns in (PART, (slice(100, 101), slice(40, 160)), (PART[0], slice(80, 80))):
            found = plane.section(rows, columns)
            np.testing.assert_array_equal(found, expected[rows, columns])
            assert found.dtype.isnative
        # Beyond it pixels can be had all the same.
        np.testing.assert_array_equal(plane.section(slice(0, 9), slice(0, 9)), expected[:9, :9])
        assert not list((tmp_path / "scratch").iterdir())  # no name to leave behind
        held = plane._unpacked.section(slice(0, 180), slice(0, 140))
        assert held.shape == (180, 140)
        plane.forget()
        again = plane.section(*PART)
        np.testing.assert_array_equal(again, expected[PART])
        plane.forget()


def test_memory_is_given_back():
    scratch = Scratch(None, 1000)
    first = scratch.room((10, 20), np.dtype(np.float32))
    second = scratch.room((10, 20), np.dtype(np.float32))
    assert first._file is None
    assert second._file is not None
    first.close()
    third = scratch.room((10, 20), np.dtype(np.float32))
    assert third._file is None
    for room in (second, third):
        room.close()


def test_a_stream_that_ends_early_is_a_tile_error(tmp_path, pixels):
    description, _ = packed(tmp_path / "t.fits", pixels, "gzip")
    whole = description.path.read_bytes()
    description.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TileError, match="can't be read"), open_fits(description.path) as hdus:
        FitsPlane(hdus, description, Scratch()).section(slice(0, 300), slice(0, 200))


@pytest.mark.parametrize("packed_hdu", [False, True])
def test_pixels_kept_as_asinh_are_turned_back(tmp_path, packed_hdu):
    """As Pan-STARRS keeps its stacks."""
    flux = np.random.default_rng(1).normal(3.0, 40.0, (60, 80))
    offset, soft = 2.0, 30.0
    kept = 2.5 / np.log(10) * np.arcsinh((flux - offset) / (2 * soft))
    header = fits.Header({"BOFFSET": offset, "BSOFTEN": soft})
    if packed_hdu:
        hdu = fits.CompImageHDU(kept.astype(np.float32), header, compression_type="GZIP_1",
                                quantize_level=0)  # fmt: skip
    else:
        hdu = fits.ImageHDU(kept.astype(np.float32), header)
    path = tmp_path / "stack.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    with open_fits(path) as hdus:
        plane = FitsPlane(hdus, Plane(path, 1), Scratch())
        found = plane.section(slice(10, 50), slice(0, 80))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, flux[10:50], rtol=1e-5, atol=1e-4)


def test_a_softening_without_its_offset_is_one_line(tmp_path):
    path = tmp_path / "stack.fits"
    fits.PrimaryHDU(np.zeros((5, 5)), fits.Header({"BSOFTEN": 3.0})).writeto(path)
    with open_fits(path) as hdus, pytest.raises(TileError, match="without BOFFSET"):
        FitsPlane(hdus, Plane(path, 0), Scratch()).section(slice(0, 5), slice(0, 5))
