"""Rows of an image arrive instead of its file, and are the same pixels of the same sky."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.cache import cache_folder
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
from jaisp.transfer.rows import Band, download_rows
from tests.transfer.server import Served, serving
from tests.transfer.test_faults import truncated

SETTINGS = FetchConfig(attempts=3, timeout_s=2)
SHAPE = (400, 300)
ROWS = (120, 180)


def image(dtype=np.float32, **options):
    """A file of three HDUs: nothing, an image with a WCS and its mask."""
    rng = np.random.default_rng(1)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 53.1, -28.1
    header["CRPIX1"], header["CRPIX2"] = 150.5, 200.5
    header["CDELT1"], header["CDELT2"] = -1e-4, 1e-4
    primary = fits.PrimaryHDU()
    primary.header["MAGZERO"] = 23.9
    pixels = (100 * rng.normal(size=SHAPE)).astype(dtype)
    science = fits.ImageHDU(pixels, header, name="SCI")
    mask = fits.ImageHDU(rng.integers(0, 99, SHAPE).astype(np.int16), name="MASK")
    return fits.HDUList([primary, science, mask])


def bytes_of(hdus, tmp_path):
    path = tmp_path / "image.fits"
    hdus.writeto(path, checksum=True, overwrite=True)
    return path.read_bytes()


@pytest.fixture
def server(own_cache):
    with serving() as server:
        yield server


def get(server, hdu="SCI", rows=ROWS, path="/a.fits", settings=SETTINGS):
    address = server.address(path)
    band = Band(hdu, ((address, hdu),), "this sky", lambda header: rows)
    return download_rows(Wanted("hst", address), band, settings, verify_structure)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16])
def test_the_same_pixels_of_the_same_sky(server, tmp_path, dtype):
    hdus = image(dtype)
    content = bytes_of(hdus, tmp_path)
    file = server.files["/a.fits"] = Served(content)
    entry = get(server)
    assert (entry["hdu"], entry["fetched"]) == (0, True)
    came = sum(_length(asked["Range"], len(content)) for asked in file.asked)
    assert came < 0.45 * len(content)
    width = SHAPE[1] * np.dtype(dtype).itemsize
    assert entry["saved"] >= (SHAPE[0] - 60) * width
    with fits.open(cache_folder() / entry["file"]) as found:
        (part,) = found
        np.testing.assert_array_equal(part.data, hdus["SCI"].data[slice(*ROWS)])
        assert part.header["MAGZERO"] == 23.9
        sky = WCS(part.header).pixel_to_world_values(10.0, 20.0)
    expected = WCS(hdus["SCI"].header).pixel_to_world_values(10.0, 20.0 + ROWS[0])
    np.testing.assert_allclose(sky, expected, rtol=0, atol=1e-10)


def _length(asked, whole):
    first, _, last = asked.removeprefix("bytes=").partition("-")
    return min(int(last) + 1, whole) - int(first)


def test_rows_are_asked_for_once(server, tmp_path):
    file = server.files["/a.fits"] = Served(bytes_of(image(), tmp_path))
    first = get(server)
    asked = len(file.asked)
    assert get(server) == first | {"fetched": False}
    assert len(file.asked) == asked
    assert get(server, hdu="MASK")["sha256"] != first["sha256"]


def test_a_band_that_is_cut_short_is_gone_on_with(server, tmp_path):
    hdus = image()
    content = bytes_of(hdus, tmp_path)
    undisturbed = server.files["/a.fits"] = Served(content)
    get(server)
    *looks, whole = (asked["Range"] for asked in undisturbed.asked)
    start = int(whole.removeprefix("bytes=").partition("-")[0])
    faults = [*[None] * len(looks), truncated(30_000)]
    served = server.files["/b.fits"] = Served(content, faults=faults)
    entry = get(server, path="/b.fits")
    first, second = (asked["Range"] for asked in served.asked[-2:])
    assert first == whole
    end = int(whole.partition("-")[2])
    assert start < int(second.removeprefix("bytes=").partition("-")[0]) < end
    assert second.partition("-")[2] == whole.partition("-")[2]
    with fits.open(cache_folder() / entry["file"]) as found:
        np.testing.assert_array_equal(found[0].data, hdus["SCI"].data[slice(*ROWS)])


@pytest.mark.parametrize("why", ["no ranges", "packed", "gzip", "cube", "nearly all", "no row"])
def test_where_rows_cannot_be_had_all_of_it_comes(server, tmp_path, why):
    import gzip

    hdus, rows, ranges = image(), ROWS, why != "no ranges"
    if why == "packed":
        hdus[1] = fits.CompImageHDU(hdus[1].data, hdus[1].header, name="SCI")
    if why == "cube":
        hdus[1] = fits.ImageHDU(np.stack([hdus[1].data] * 2), hdus[1].header, name="SCI")
    rows = {"nearly all": (10, 395), "no row": None}.get(why, ROWS)
    content = bytes_of(hdus, tmp_path)
    path = "/a.fits"
    if why == "gzip":
        content, path = gzip.compress(content), "/a.fits.gz"
    server.files[path] = Served(content, ranges=ranges)
    entry = get(server, rows=rows, path=path)
    assert "hdu" not in entry
    assert (cache_folder() / entry["file"]).read_bytes() == content
    assert download(Wanted("hst", server.address(path)), SETTINGS, verify_structure) == entry | {
        "fetched": False
    }


@pytest.mark.parametrize("card", [b"NAXIS1  ", b"BITPIX  "])
def test_a_header_that_lacks_a_card_is_for_the_whole_file_to_tell(server, tmp_path, card):
    content = bytes_of(image(), tmp_path)
    start = content.index(card, 2880)
    lacking = content[:start] + b"COMMENT " + content[start + 8 :]
    server.files["/a.fits"] = Served(lacking)
    with pytest.raises(TileError) as caught:
        get(server)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "hdu", "line"),
    [(None, "SCI", "404"), ("image", "NONE", "has no HDU 'NONE'"), ("image", 7, "has no HDU 7")],
)
def test_what_is_not_there_is_one_line(server, tmp_path, content, hdu, line):
    if content:
        server.files["/a.fits"] = Served(bytes_of(image(), tmp_path))
    with pytest.raises(TileError, match=line) as caught:
        get(server, hdu=hdu)
    assert "\n" not in str(caught.value)
