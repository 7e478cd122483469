"""Rows and links through plan and fetch: the same pixels, the credential only where it belongs."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.archives.table import read_tiles
from jaisp.config import load_config
from jaisp.fetch import BATCHES, fetch, foreseen, gather_fetched
from jaisp.files import write_receipt
from jaisp.plan import plan
from jaisp.sky import cells
from tests.archives.test_sia2 import offer, square
from tests.configs import CENTRE, small_config, write_config, write_tile
from tests.transfer.server import Served, serving
from tests.transfer.test_datalink import document


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        yield server


def fetch_all(config):
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    return gather_fetched(config)


def config_of(tmp_path, archive, **changes):
    content = small_config(fetch={"attempts": 2, "timeout_s": 2}, **changes)
    content["surveys"]["sharp"]["archive"] = archive
    write_tile(tmp_path / "wide.fits", 0.2)
    return load_config(write_config(tmp_path, content))


@pytest.fixture
def in_rows(server, tmp_path):
    """A config whose sharp survey lies elsewhere, 200″ of it, of which 13″ are needed."""
    write_tile(tmp_path / "sharp.fits", 0.1, size_arcsec=200.0)
    server.files["/dr1/sharp.fits"] = Served((tmp_path / "sharp.fits").read_bytes())
    archive = small_config()["surveys"]["sharp"]["archive"]
    return config_of(tmp_path, archive | {"root": server.address("/dr1"), "rows": True})


def test_rows_of_all_planes_of_a_tile(server, tmp_path, in_rows, caplog):
    caplog.set_level("INFO")
    plan(in_rows)
    assert fetch_all(in_rows)["problems"] == 0
    sharp = next(t for t in read_tiles(in_rows, fetched=True) if t.survey == "sharp")
    assert (sharp.science.hdu, sharp.noise.hdu) == (0, 0)
    whole = fits.getdata(tmp_path / "sharp.fits")
    with fits.open(sharp.science.path) as science, fits.open(sharp.noise.path) as noise:
        assert science[0].shape == noise[0].shape
        rows, columns = science[0].shape
        assert columns == 2000
        assert rows < 1000
        x, y = WCS(science[0].header).world_to_pixel_values(*CENTRE)
        # The source is in the middle of the image, as in the whole one.
        first = round(999.5 - float(y))
        np.testing.assert_array_equal(science[0].data, whole[first : first + rows])
        assert float(x) == pytest.approx(999.5, abs=1e-3)
        assert science[0].header["MAGZERO"] == 31.4
    told = next(r.message for r in caplog.records if "parts of images" in r.message)
    came, instead = (int(word) for word in told.split() if word.isdigit())
    assert came < 0.5 * instead
    assert all(row["here"] for row in foreseen(in_rows))


def test_a_plane_that_is_packed_makes_all_of_them_whole(server, tmp_path, in_rows):
    with fits.open(tmp_path / "sharp.fits") as hdus:
        packed = fits.CompImageHDU(hdus["RMS"].data, name="RMS")
        fits.HDUList([hdus[0], packed]).writeto(tmp_path / "packed.fits")
    server.files["/dr1/sharp.fits"] = Served((tmp_path / "packed.fits").read_bytes())
    plan(in_rows)
    assert fetch_all(in_rows)["problems"] == 0
    sharp = next(t for t in read_tiles(in_rows, fetched=True) if t.survey == "sharp")
    assert sharp.noise.hdu == "RMS"
    assert sharp.science.path == sharp.noise.path


def test_links_are_followed_when_the_file_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setenv("RSP", "swordfish")
    config = config_of(
        tmp_path,
        {
            "kind": "sia2",
            "url": server.address("/sia"),
            "token_env": "RSP",
            "science": {"hdu": 0},
            "noise": {"kind": "rms", "hdu": "RMS"},
            "zeropoint": "MAGZERO",
        },
    )
    (cell,) = cells(config)
    write_tile(tmp_path / "coadd.fits", 0.1)
    content = (tmp_path / "coadd.fits").read_bytes()
    # Another name of the same machine: a credential isn't for it.
    store = server.address("").replace("127.0.0.1", "localhost")
    links = server.files["/links"] = Served(document((f"{store}/store/a.fits?signed=1", "#this")))
    file = server.files["/store/a.fits"] = Served(content)
    file.faults = [lambda handler, _: (handler.serve(file, stop=200_000), handler.cut())]
    row = {
        "access_url": server.address("/links?ID=7"),
        "access_format": "application/x-votable+xml;content=datalink",
        "energy_bandpassname": "r",
        "obs_id": "7",
        "s_region": square(cell, 0, 400),
    }
    offer(server, [row])
    plan(config)
    config = config.model_copy(
        update={"fetch": config.fetch.model_copy(update={"private_hosts": ["localhost"]})}
    )
    assert fetch_all(config)["problems"] == 0
    assert len(links.asked) == len(file.asked) == 2  # the link anew for the second try
    assert all(asked["Authorization"] == "Bearer swordfish" for asked in links.asked)
    assert not any("Authorization" in asked for asked in file.asked)
    assert "Range" in file.asked[1]
    notes = [*(tmp_path / "cache").rglob("*.json"), *(tmp_path / "results").rglob("*.ecsv")]
    assert notes
    assert not any("signed=1" in path.read_text() for path in notes)
