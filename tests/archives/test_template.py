"""Tiles whose addresses follow from their names: those that the sky needs, with their checksums."""

import numpy as np
import pytest
from astropy.table import Table

from jaisp.archives.table import read_tiles
from jaisp.archives.template import find_tiles
from jaisp.config import load_config
from jaisp.errors import UserError
from jaisp.fetch import BATCHES, fetch, gather_fetched
from jaisp.files import sha256, write_receipt
from jaisp.plan import plan
from tests.configs import CENTRE, small_config, write_config, write_tile
from tests.transfer.server import Served, serving

NAME = "/dr10/coadd/{folder}/{brickname}/legacysurvey-{brickname}-{plane}-{band}.fits"
COSINE = np.cos(np.radians(CENTRE[1]))


def bricks():
    """Three by three of 0.05° about the field, as the Legacy Surveys' table tells them."""
    rows = []
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            ra, dec = CENTRE[0] + 0.05 * i / COSINE, CENTRE[1] + 0.05 * j
            wide = 0.0255 / COSINE
            limits = (ra - wide, ra + wide, dec - 0.0255, dec + 0.0255)
            rows.append((f"b{i + 1}{j + 1}", 7 + i, ra, dec, *limits))
    return Table(rows=rows, names=["brickname", "tract", "ra", "dec", "ra1", "ra2", "dec1", "dec2"])


def archive(server, **changes):
    def url(plane):
        name = NAME.replace("{folder}", "{tract:03d}").replace("{plane}", plane)
        return server.address(name)

    return {
        "kind": "template",
        "tiles": "bricks.csv",
        "tile": "{brickname}",
        "band_names": {"red": "r"},
        "science": {"url": url("image"), "hdu": 0},
        "noise": {"kind": "inverse_variance", "url": url("invvar"), "hdu": 0},
        "zeropoint": 22.5,
        **changes,
    }


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    bricks().write(tmp_path / "bricks.csv")
    with serving() as server:
        yield server


def make_config(tmp_path, server, **changes):
    content = small_config(fetch={"attempts": 1, "timeout_s": 2})
    content["surveys"]["sharp"] |= {"bands": ["red"], "archive": archive(server, **changes)}
    write_tile(tmp_path / "wide.fits", 0.2)
    return load_config(write_config(tmp_path, content))


def test_the_one_brick_that_holds_the_field_and_its_addresses(server, tmp_path):
    (tile,) = find_tiles(make_config(tmp_path, server), "sharp")
    assert (tile.band, tile.id, tile.noise_kind, tile.zeropoint) == (
        "red",
        "b11",
        "inverse_variance",
        22.5,
    )
    path = "/dr10/coadd/007/b11/legacysurvey-b11-{}-r.fits"
    assert tile.science.path == server.address(path.format("image"))
    assert tile.noise.path == server.address(path.format("invvar"))


def test_tiles_told_by_centre_and_width(server, tmp_path):
    config = make_config(tmp_path, server, covers={"width_arcmin": 3.06})
    assert [tile.id for tile in find_tiles(config, "sharp")] == ["b11"]


def test_a_field_across_bricks_takes_them_all(server, tmp_path):
    table = bricks()
    table["ra1"] += 0.0252 / COSINE
    table["ra2"] += 0.0252 / COSINE
    table.write(tmp_path / "bricks.csv", overwrite=True)
    found = {tile.id for tile in find_tiles(make_config(tmp_path, server), "sharp")}
    assert found == {"b01", "b11"}


@pytest.mark.parametrize("ending", ["ecsv", "fits", "csv"])
def test_the_table_may_be_elsewhere_and_of_any_kind(server, tmp_path, ending):
    bricks().write(tmp_path / f"there.{ending}")
    server.files[f"/bricks.{ending}"] = Served((tmp_path / f"there.{ending}").read_bytes())
    config = make_config(tmp_path, server, tiles=server.address(f"/bricks.{ending}"))
    assert [tile.id for tile in find_tiles(config, "sharp")] == ["b11"]


def test_across_the_first_meridian(server, tmp_path):
    table = Table(
        rows=[("west", 359.97, 0.02, -0.1, 0.1), ("east", 0.05, 0.15, -0.1, 0.1)],
        names=["brickname", "ra1", "ra2", "dec1", "dec2"],
    )
    table["tract"] = 1
    table.write(tmp_path / "bricks.csv", overwrite=True)
    content = small_config()
    content["sky"] |= {"ra": 359.999, "dec": 0.0}
    content["surveys"]["sharp"] |= {"bands": ["red"], "archive": archive(server)}
    config = load_config(write_config(tmp_path, content))
    assert [tile.id for tile in find_tiles(config, "sharp")] == ["west"]


def served(server, tmp_path, spoiled=False):
    """The brick's two images and its list of checksums."""
    write_tile(tmp_path / "tile.fits", 0.1)
    content = (tmp_path / "tile.fits").read_bytes()
    lines = []
    for plane in ("image", "invvar"):
        name = f"legacysurvey-b11-{plane}-r.fits"
        server.files[f"/dr10/coadd/007/b11/{name}"] = Served(content)
        digest = "0" * 64 if spoiled else sha256(tmp_path / "tile.fits")
        lines.append(f"{digest} *{name}")
    server.files["/dr10/b11.sha256sum"] = Served("\n".join(lines).encode())
    return server.address("/dr10/{brickname}.sha256sum")


def fetch_all(config):
    plan(config)
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    return gather_fetched(config)


def test_checksums_of_the_archive_are_held_against_what_came(server, tmp_path):
    config = make_config(tmp_path, server, checksums=served(server, tmp_path))
    assert fetch_all(config) == {"planes": 4, "tiles": 2, "problems": 0}
    (sharp, _) = read_tiles(config)
    assert sharp.science.sha256 == sharp.noise.sha256 == sha256(tmp_path / "tile.fits")


def test_another_checksum_is_a_problem(server, tmp_path):
    config = make_config(tmp_path, server, checksums=served(server, tmp_path, spoiled=True))
    with pytest.raises(UserError, match="differs from the archive's checksum"):
        fetch_all(config)


def test_files_at_hand_by_the_same_names(server, tmp_path):
    write_tile(tmp_path / "b11-r.fits", 0.1)
    changes = {"science": {"url": "{brickname}-{band}.fits"}}
    changes["noise"] = {"kind": "rms", "hdu": "RMS"}
    (tile,) = find_tiles(make_config(tmp_path, server, **changes), "sharp")
    assert tile.science.path == tile.noise.path == tmp_path / "b11-r.fits"
    assert tile.science.bytes > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tiles": "none.csv"}, r"archive\.tiles: none\.csv: no table"),
        ({"covers": {"ra": ["west", "ra2"]}}, r"covers: the table has no column 'west'"),
        ({"tile": "{brick}"}, r"archive\.tile: the table has no column 'brick'"),
        ({"tile": "{brickname:d}"}, r"archive\.tile: "),
        ({"science": {"url": "{brickname}.fits"}}, "no such file"),
        ({"science": {"url": "../{brickname}.fits"}}, "outside of the data folder"),
        ({"checksums": "sums/{brickname}"}, "no address"),
        ({"science": {"url": "s3://bucket/../{brickname}"}}, r"science\.url: .*refused"),
        ({"science": {"url": "s3:///{brickname}"}}, r"science\.url: .*no bucket's name"),
        ({"tiles": "s3://bucket/../bricks.csv"}, r"archive\.tiles: .*refused"),
        ({"checksums": "s3://bucket//{brickname}"}, r"archive\.checksums: .*refused"),
    ],
)
def test_mistakes_are_one_line_with_the_key(server, tmp_path, changes, reason):
    with pytest.raises(UserError, match=reason) as told:
        find_tiles(make_config(tmp_path, server, **changes), "sharp")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["{a.b}", "{a[0]}", "{0}", "{", "{}"])
def test_templates_hold_names_alone(server, tmp_path, text):
    with pytest.raises(UserError, match=r"archive\.tile: no template"):
        make_config(tmp_path, server, tile=text)


def test_sky_without_tiles_is_said(server, tmp_path):
    table = bricks()
    for name in ("dec", "dec1", "dec2"):
        table[name] += 5
    table.write(tmp_path / "bricks.csv", overwrite=True)
    with pytest.raises(UserError, match="none of 9 tiles covers the sky"):
        find_tiles(make_config(tmp_path, server), "sharp")
