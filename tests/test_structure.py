"""A FITS file is whole, or refused in one line: damaged, cut, or larger than any memory."""

import bz2
import gzip
import io
import lzma
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from jaisp import structure
from jaisp.errors import TileError
from jaisp.structure import verify_structure

CASES = 24
BLOCK = 2880


@pytest.fixture
def path(tmp_path):
    """An image, a compressed one and a table, each with its checksums."""
    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(40, 50)).astype(np.float32)
    columns = [fits.Column("ra", "D", array=rng.normal(size=30))]
    hdus = [
        fits.PrimaryHDU(pixels),
        fits.CompImageHDU((100 * pixels).astype(np.int16), name="PACKED"),
        fits.BinTableHDU.from_columns(columns, name="CATALOGUE"),
    ]
    path = tmp_path / "tile.fits"
    fits.HDUList(hdus).writeto(path, checksum=True)
    return path


def astropy_is_content(path):
    """Whether astropy finds every checksum right, reading the bytes as they lie."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        options = {"checksum": True, "disable_image_compression": True, "lazy_load_hdus": False}
        with fits.open(path, **options) as hdus:
            len(hdus)
    return not any(issubclass(each.category, AstropyUserWarning) for each in told)


def test_a_flipped_bit_anywhere_is_what_astropy_finds_too(path):
    """Of the data, and of comments in the headers, which make no header another one."""
    good = path.read_bytes()
    verify_structure(path)
    assert astropy_is_content(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        places = [hdu.fileinfo() for hdu in hdus]
    spans = [range(place["datLoc"], place["datLoc"] + place["datSpan"]) for place in places]
    rng = np.random.default_rng(2)
    for case in range(CASES):
        span = spans[case % len(spans)]
        spoiled = bytearray(good)
        spoiled[int(rng.choice(span))] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoiled)
        assert not astropy_is_content(path)
        with pytest.raises(TileError, match=r"tile\.fits.*(DATA|CHECK)SUM verification failed"):
            verify_structure(path)
    spoiled = bytearray(good)
    comment = good.index(b"conforms to FITS")
    spoiled[comment : comment + 8] = b"complies"
    path.write_bytes(spoiled)
    assert not astropy_is_content(path)
    with pytest.raises(TileError, match=r"\[0\]: CHECKSUM verification failed"):
        verify_structure(path)


def test_sums_that_are_blank_or_absent_say_nothing(path, tmp_path):
    with fits.open(path) as hdus:
        hdus.writeto(tmp_path / "none.fits")
    verify_structure(tmp_path / "none.fits")
    content = path.read_bytes()
    start = content.index(b"CHECKSUM= '")
    blank = b"CHECKSUM= '                '"
    path.write_bytes(content[:start] + blank + content[start + len(blank) :])
    # The header is another one now, but nothing in it says so; its data still are what they were.
    verify_structure(path)


def test_cut_anywhere(path):
    good = path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(CASES):
        cut = int(rng.integers(1, len(good)))
        path.write_bytes(good[: cut + (cut % BLOCK == 0)])  # not between two HDUs
        with pytest.raises(TileError) as told:
            verify_structure(path)
        assert "\n" not in str(told.value)


def test_filling_after_the_last_hdu_is_none_of_it(path):
    good = path.read_bytes()
    path.write_bytes(good + bytes(BLOCK) + b"\r\n")
    verify_structure(path)
    path.write_bytes(good + b"XTENSION")
    with pytest.raises(TileError, match="truncated"):
        verify_structure(path)


@pytest.mark.parametrize("packing", [gzip.compress, bz2.compress, lzma.compress, "zip"])
def test_packed_as_a_whole(path, packing):
    good = path.read_bytes()
    spoiled = bytearray(good)
    spoiled[BLOCK * 2] ^= 1
    for content in (good, bytes(spoiled)):
        path.write_bytes(zipped(content) if packing == "zip" else packing(content))
        if content is good:
            verify_structure(path)
            with pytest.raises(TileError, match=r"more than fetch\.most_bytes .*refused"):
                verify_structure(path, most_bytes=len(good) - 1)
        else:
            with pytest.raises(TileError, match="verification failed"):
                verify_structure(path)


def zipped(content):
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tile.fits", content)
    return handle.getvalue()


def huge(bits=-32):
    """A header that claims 10¹² pixels, of which none are there."""
    cards = {"SIMPLE": True, "BITPIX": bits, "NAXIS": 2, "NAXIS1": 10**6, "NAXIS2": 10**6}
    return fits.Header(cards).tostring().encode()


def huge_and_packed():
    """One tile of few bytes that stands for 10¹² pixels: a table that is whole."""
    handle = io.BytesIO()
    packed = fits.CompImageHDU(np.zeros((8, 8), np.int16), tile_shape=(8, 8))
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(handle)
    with fits.open(io.BytesIO(handle.getvalue()), disable_image_compression=True) as hdus:
        hdus[1].header.update(dict.fromkeys(("ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2"), 10**6))
        hdus[1].add_checksum()
        handle = io.BytesIO()
        hdus.writeto(handle)
    return handle.getvalue()


@pytest.mark.parametrize("kind", ["plain", "packed pixels", "gzip", "gzip of packed pixels"])
def test_a_million_by_a_million_pixels(tmp_path, kind):
    """Refused in one line, and nothing like that many bytes are asked of memory."""
    rng = np.random.default_rng(4)
    path = tmp_path / "huge.fits"
    tracemalloc.start()
    for _ in range(CASES):
        content = huge_and_packed() if "packed" in kind else huge() + rng.bytes(rng.integers(9000))
        path.write_bytes(gzip.compress(content) if "gzip" in kind else content)
        with pytest.raises(TileError, match=r"truncated|10+ × 10+ pixels, .*refused") as told:
            verify_structure(path)
        assert "\n" not in str(told.value)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_a_gzip_bomb_is_left_where_it_is_too_long(tmp_path):
    """Zeros pack a thousandfold; nobody unpacks more of them than is allowed."""
    rng = np.random.default_rng(5)
    zeros = gzip.compress(bytes(30_000_000))
    for _ in range(CASES):
        path = tmp_path / "bomb.fits.gz"
        # Members one after the other unpack to one file.
        path.write_bytes(gzip.compress(huge() + rng.bytes(rng.integers(9000))) + zeros * 40)
        tracemalloc.start()
        with pytest.raises(TileError, match=r"unpacks to more than fetch\.most_bytes .*refused"):
            verify_structure(path, most_bytes=20_000_000)
        assert tracemalloc.get_traced_memory()[1] < 30e6
        tracemalloc.stop()


@pytest.mark.parametrize(("key", "value"), [("ZNAXIS1", "many"), ("ZBITPIX", "few"), ("ZNAXIS", 3)])
def test_packed_pixels_that_nobody_can_count(tmp_path, key, value):
    path = tmp_path / "tile.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((8, 8), np.int16))]).writeto(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        hdus[1].header[key] = value
        hdus.writeto(path, overwrite=True)
    with pytest.raises(TileError, match=r"tile\.fits"):
        verify_structure(path)


def without_end(path):
    """An image, and after it a header that goes on to the end of the file."""
    handle = io.BytesIO()
    fits.PrimaryHDU(np.zeros((4, 4), "f4")).writeto(handle)
    card = b"XTENSION= 'IMAGE   '".ljust(80)
    content = handle.getvalue() + card + b"COMMENT ".ljust(80) * (36 * 3000 - 1)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["tile.fits", "tile.fits.gz"])
def test_a_header_without_end_is_not_kept_in_memory(tmp_path, monkeypatch, name):
    path = without_end(tmp_path / name)
    monkeypatch.setattr(structure, "MOST_HEADERS", 1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(TileError, match=r"headers of more than 1 MiB; refused") as told:
            verify_structure(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(told.value)
    assert peak < (1 << 23 if name.endswith("s") else 1 << 24)  # the file: 8.6 MB


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_data_are_no_headers(tmp_path, monkeypatch, ending):
    """Of tables and packed pixels nothing but headers is looked at, whatever they are long."""
    columns = [fits.Column("ra", "D", array=np.zeros(500_000))]
    table = fits.BinTableHDU.from_columns(columns, name="LONG")
    packed = fits.CompImageHDU(np.zeros((500, 500), "i4"), name="LONG TOO")
    hdus = fits.HDUList([fits.PrimaryHDU(), table, packed])
    hdus.writeto(tmp_path / f"long.fits{ending}", checksum=True)
    monkeypatch.setattr(structure, "MOST_HEADERS", 1 << 16)
    verify_structure(tmp_path / f"long.fits{ending}")
