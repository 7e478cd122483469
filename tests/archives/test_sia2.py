"""What a service of images answers becomes the tiles that the sky needs, or one line."""

import io
import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from astropy.io.votable import from_table
from astropy.table import Table

from jaisp.archives.sia2 import find_tiles, question, read_answer
from jaisp.archives.table import read_tiles
from jaisp.config import load_config
from jaisp.config.hashes import group_hash, stage_hash
from jaisp.config.survey import Sia2Archive
from jaisp.errors import TileError, UserError
from jaisp.fetch import BATCHES, fetch, gather_fetched
from jaisp.files import write_receipt
from jaisp.plan import plan
from jaisp.sky import cells, plane_radec
from tests.configs import CENTRE, small_config, write_config, write_tile
from tests.transfer.server import Served, serving

# As IRSA names Euclid's mosaics.
MER = "EUC_MER_{kind}-{band}_TILE{tile}-{hash}_00.00.fits"
KINDS = {"science": "BGSUB-MOSAIC", "noise": "MOSAIC-RMS", "flag": "MOSAIC-FLAG"}


def votable(rows, status="OK", columns=None):
    columns = columns or list(rows[0])
    table = from_table(Table(rows=[[row[name] for name in columns] for row in rows], names=columns))
    handle = io.BytesIO()
    table.to_xml(handle)
    info = f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="{status}"/>'
    return handle.getvalue().replace(b'<RESOURCE type="results">', info.encode())


def square(cell, x, half):
    """The outline of a square about a place on the cell's plane, arcsec, as a service tells it."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + [x, 0]
    numbers = np.stack(plane_radec(cell, *corners.T), axis=1).ravel()
    return "POLYGON ICRS " + " ".join(f"{number:.8f}" for number in numbers)


def row(base, band, tile, subtype, region, version="aa"):
    name = MER.format(kind=KINDS[subtype], band=band, tile=tile, hash=version)
    return {
        "access_url": f"{base}/{name}",
        "obs_id": f"{tile}_{band}",
        "energy_bandpassname": band,
        "dataproduct_subtype": subtype,
        "s_region": region,
        "obs_collection": "euclid_q1",
        "obs_publisher_did": f"ivo://here/{name}",
        "obs_release_date": "2025-03-19",
    }


def make_config(tmp_path, server, **archive):
    content = small_config(fetch={"attempts": 1, "timeout_s": 2})
    content["surveys"]["sharp"] |= {
        "bands": ["V"],
        "archive": {
            "kind": "sia2",
            "url": server.address("/sia"),
            "collection": "euclid_q1",
            "band_names": {"V": "VIS"},
            "tile": "TILE([0-9]+)",
            "science": {"subtype": "science"},
            "noise": {"kind": "rms", "subtype": "noise"},
            "mask": {"subtype": "flag"},
            "zeropoint": "MAGZERO",
            **archive,
        },
    }
    write_tile(tmp_path / "wide.fits", 0.2)
    return load_config(write_config(tmp_path, content))


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        yield server


def offer(server, rows, **more):
    server.files["/sia"] = Served(votable(rows, **more))


def three_planes(server, cell, tile="7", x=0, half=400, version="aa"):
    region = square(cell, x, half)
    return [row(server.address(""), "VIS", tile, kind, region, version) for kind in KINDS]


def test_planes_meet_by_tile_and_the_deepest_tile_is_taken(server, tmp_path):
    config = make_config(tmp_path, server)
    (cell,) = cells(config)
    rows = [
        *three_planes(server, cell, "7", x=0),
        *three_planes(server, cell, "8", x=350),  # covers the field, less deep
        *three_planes(server, cell, "9", x=2000),
        row(server.address(""), "Y", "7", "science", square(cell, 0, 400)),
    ]
    offer(server, rows)
    (tile,) = find_tiles(config, "sharp")
    assert (tile.survey, tile.band, tile.id) == ("sharp", "V", "7")
    names = [plane.path.rpartition("/")[2] for plane in (tile.science, tile.noise, tile.mask)]
    assert [kind in name for kind, name in zip(KINDS.values(), names, strict=True)] == [True] * 3
    assert (tile.noise_kind, tile.zeropoint, tile.bad_bits) == ("rms", "MAGZERO", None)
    assert tile.origin["obs_collection"] == "euclid_q1"
    assert tile.origin["obs_release_date"] == "2025-03-19"


def test_the_question_holds_the_sky_and_the_collection(server, tmp_path):
    config = make_config(tmp_path, server)
    (cell,) = cells(config)
    offer(server, three_planes(server, cell))
    find_tiles(config, "sharp")
    asked = parse_qs(urlsplit(question(config.surveys["sharp"].archive, cell)).query)
    assert asked["COLLECTION"] == ["euclid_q1"]
    shape, ra, dec, radius = asked["POS"][0].split()
    assert shape == "CIRCLE"
    assert (float(ra), float(dec)) == pytest.approx(CENTRE, abs=1e-5)
    # A circle around the one patch.
    assert 12.8 / np.sqrt(2) <= float(radius) * 3600 < 12.8


def test_more_can_be_asked_for(server, tmp_path):
    config = make_config(tmp_path, server, parameters={"DPSUBTYPE": "lsst.deep_coadd", "CALIB": 3})
    (cell,) = cells(config)
    asked = parse_qs(urlsplit(question(config.surveys["sharp"].archive, cell)).query)
    assert (asked["DPSUBTYPE"], asked["CALIB"]) == (["lsst.deep_coadd"], ["3"])


def test_columns_of_the_service_s_own_name_band_and_tile(server, tmp_path):
    """As the Rubin Science Platform tells coadds: links, and three planes in one file."""
    hdus = {"science": "IMAGE", "noise": "VARIANCE", "mask": "MASK"}
    config = make_config(
        tmp_path,
        server,
        band_names={"V": "i"},
        band_column="lsst_band",
        tile_columns=["lsst_tract", "lsst_patch"],
        tile=None,
        science={"hdu": hdus["science"]},
        noise={"kind": "variance", "hdu": hdus["noise"]},
        mask={"hdu": hdus["mask"]},
        release="DP1",
    )
    (cell,) = cells(config)
    image = {
        "access_url": server.address("/links?ID=butler-1"),
        "access_format": "application/x-votable+xml;content=datalink",
        "dataproduct_subtype": "lsst.deep_coadd",
        "lsst_band": "i",
        "lsst_tract": 5063,
        "lsst_patch": 14,
        "s_region": square(cell, 0, 400),
    }
    other = {"lsst_band": "r", "access_url": server.address("/links?ID=butler-2")}
    offer(server, [image, {**image, **other}])
    (tile,) = find_tiles(config, "sharp")
    assert tile.id == "5063-14"
    assert tile.linked
    assert tile.origin == {"release": "DP1"}
    planes = {"science": tile.science, "noise": tile.noise, "mask": tile.mask}
    assert {name: plane.hdu for name, plane in planes.items()} == hdus
    assert {plane.path for plane in planes.values()} == {image["access_url"]}


def test_a_square_of_a_large_image_is_asked_for(server, tmp_path):
    cutout = "?center={ra},{dec}&size={pixels}&gzip=false"
    config = make_config(tmp_path, server, cutout=cutout)
    (cell,) = cells(config)
    offer(server, three_planes(server, cell))
    (tile,) = find_tiles(config, "sharp")
    asked = [
        parse_qs(urlsplit(plane.path).query) for plane in (tile.science, tile.noise, tile.mask)
    ]
    assert asked[0] == asked[1] == asked[2]
    ra, dec = (float(number) for number in asked[0]["center"][0].split(","))
    assert (ra, dec) == pytest.approx(CENTRE, abs=1e-5)
    pixel = config.surveys["sharp"].pixel_arcsec
    # The one patch, its diagonal, and half a minute of arc on each side.
    assert 12.8 + 60 < int(asked[0]["size"][0]) * pixel < 12.8 * np.sqrt(2) + 62


@pytest.mark.parametrize(
    ("cutout", "line"),
    [
        ("?size={pixels}", "must have {ra}, {dec} and one of"),
        ("?c={ra},{dec}&s={pixels}&t={token}", "and no other"),
        ("?c={ra},{dec}&s={pixels.__class__}", "is no column's name"),
    ],
)
def test_a_square_is_named_by_place_and_width(server, tmp_path, cutout, line):
    with pytest.raises(UserError, match=line):
        make_config(tmp_path, server, cutout=cutout)


def test_of_two_versions_the_newer_is_taken(server, tmp_path):
    config = make_config(tmp_path, server)
    (cell,) = cells(config)
    offer(
        server,
        [*three_planes(server, cell, version="bb"), *three_planes(server, cell, version="aa")],
    )
    (tile,) = find_tiles(config, "sharp")
    assert all("-bb_" in plane.path for plane in (tile.science, tile.noise, tile.mask))


def test_a_service_without_subtypes_is_read_by_names(server, tmp_path):
    config = make_config(
        tmp_path,
        server,
        science={"name": "BGSUB"},
        noise={"kind": "rms", "name": "RMS"},
        mask={"name": "FLAG"},
        band="-(VIS|Y)_",
    )
    (cell,) = cells(config)
    rows = three_planes(server, cell)
    offer(server, rows, columns=["access_url", "obs_id", "s_region"])
    (tile,) = find_tiles(config, "sharp")
    assert "RMS" in tile.noise.path
    assert "FLAG" in tile.mask.path
    assert tile.origin == {}


def test_planes_may_stand_in_one_file(server, tmp_path):
    noise = {"kind": "variance", "hdu": "VARIANCE"}
    config = make_config(tmp_path, server, noise=noise, mask={"hdu": 3, "bad_bits": 5})
    (cell,) = cells(config)
    offer(server, three_planes(server, cell)[:1])
    (tile,) = find_tiles(config, "sharp")
    assert tile.science.path == tile.noise.path == tile.mask.path
    assert (tile.noise.hdu, tile.mask.hdu, tile.bad_bits) == ("VARIANCE", 3, 5)


def test_a_tile_without_its_noise_is_left_out_and_said_so(server, tmp_path, caplog):
    config = make_config(tmp_path, server)
    (cell,) = cells(config)
    whole, lacking = three_planes(server, cell, "7"), three_planes(server, cell, "8")
    offer(server, [*whole, lacking[0], lacking[2]])
    assert [tile.id for tile in find_tiles(config, "sharp")] == ["7"]
    assert "sharp V 8: has not all of its planes" in caplog.text


@pytest.mark.parametrize(
    ("told", "estimate"), [(1435, 1_435_000), (0, 0), (-1, 0), (np.nan, 0), (9e18, 0)]
)
def test_how_long_files_are_about_is_kept(server, tmp_path, told, estimate):
    config = make_config(tmp_path, server, noise={"kind": "rms", "hdu": 1})
    (cell,) = cells(config)
    rows = [own | {"access_estsize": told} for own in three_planes(server, cell)]
    offer(server, rows)
    counts = plan(config)
    sharp, _ = read_tiles(config)
    assert [sharp.science.bytes, sharp.science.estimate] == [0, estimate]
    assert [sharp.noise.estimate, sharp.mask.estimate] == [estimate, estimate]
    # Science and noise stand in one file.
    assert counts["bytes"] == 2 * estimate + (tmp_path / "wide.fits").stat().st_size


def test_where_no_outline_is_told_the_field_of_view_will_do(server, tmp_path):
    config = make_config(tmp_path, server, noise={"kind": "estimate"}, mask=None)
    (cell,) = cells(config)
    rows = [
        {
            **{k: v for k, v in own.items() if k != "s_region"},
            "s_ra": CENTRE[0] + away,
            "s_dec": CENTRE[1],
            "s_fov": 0.2,
        }
        for own, away in zip(
            (three_planes(server, cell, "7")[0], three_planes(server, cell, "8")[0]),
            (0.001, 1.0),
            strict=True,
        )
    ]
    offer(server, rows)
    assert [tile.id for tile in find_tiles(config, "sharp")] == ["7"]


def test_a_band_that_lacks_is_told_with_those_there_are(server, tmp_path):
    config = make_config(tmp_path, server, band_names={"V": "WHITE"})
    (cell,) = cells(config)
    offer(server, three_planes(server, cell))
    with pytest.raises(UserError, match=r"surveys\.sharp\.bands: .*'V' \('WHITE' there.* VIS"):
        find_tiles(config, "sharp")


def in_cloud(bucket="euclid-q1", key="q1/MER/a.fits"):
    return json.dumps({"aws": {"bucket_name": bucket, "key": key, "region": "us-east-1"}})


def test_a_bucket_is_preferred_where_one_is_named_and_asked_for(server, tmp_path, caplog):
    config = make_config(tmp_path, server, cloud_access=True)
    (cell,) = cells(config)
    science, noise, mask = three_planes(server, cell)
    name = science["access_url"].rpartition("/")[2]
    cloud = (in_cloud(key=f"q1/MER/{name}"), "", '{"gcp": {}}')
    rows = zip((science, noise, mask), cloud, strict=True)
    offer(server, [row | {"cloud_access": text} for row, text in rows])
    (tile,) = find_tiles(config, "sharp")
    assert tile.science.path == f"s3://euclid-q1/q1/MER/{name}"
    assert (tile.noise.path, tile.mask.path) == (noise["access_url"], mask["access_url"])
    assert "2 of 3 images have no cloud_access" in caplog.text
    (tmp_path / "wide.fits").unlink()
    plain = make_config(tmp_path, server)
    (tile,) = find_tiles(plain, "sharp")
    assert tile.science.path == science["access_url"]
    # Other addresses of the same pixels: they are planned anew, and warped as they were.
    assert stage_hash(plain, "plan") != stage_hash(config, "plan")
    assert group_hash(plain, "sharp", cell) == group_hash(config, "sharp", cell)


@pytest.mark.parametrize(
    "cloud",
    [
        "no JSON",
        "[1]",
        "7",
        '{"aws": 7}',
        '{"aws": {"key": "a"}}',
        '{"aws": {"bucket_name": "bucket"}}',
        "[" * 100_000,
        in_cloud(bucket=""),
        in_cloud(bucket=".."),
        in_cloud(bucket="a@10.0.0.1"),
        in_cloud(bucket="a/b/.."),
        in_cloud(bucket=7),
        in_cloud(bucket=None),
        in_cloud(key=""),
        in_cloud(key="a/../../b"),
        in_cloud(key="a\nb"),
        in_cloud(key="a\x00b"),
        in_cloud(key="x" * 100_000),
    ],
)
def test_hostile_buckets_are_one_line(cloud):
    archive = Sia2Archive(kind="sia2", url="https://a.org/sia", cloud_access=True)
    rows = [{"access_url": "https://a.org/a.fits", "cloud_access": cloud}]
    with pytest.raises(TileError, match=r"refused|names no bucket") as told:
        list(read_answer(votable(rows), archive))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


ENTITIES = b"".join(b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10) for k in range(9))
BOMB = (
    b"""<?xml version="1.0"?><!DOCTYPE VOTABLE [<!ENTITY a "aaaaaaaaaa">%s]>
<VOTABLE version="1.3"><RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/>
<TABLE><FIELD name="access_url" datatype="char" arraysize="*"/>
<DATA><TABLEDATA><TR><TD>&j;</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""
    % ENTITIES
)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>sorry</html>", "no table of images"),
        (b"", "no table of images"),
        (b"\x00\x01\x02", "no table of images"),
        (BOMB, "no table of images"),
        (votable([{"access_url": "x"}], status="ERROR"), "no table of images"),
        (votable([{"access_url": "x"}], status="OVERFLOW"), "more images than it tells at once"),
        (votable([{"access_url": "file:///etc/passwd"}]), "refused"),
        (votable([{"access_url": "http://10.0.0.1/a.fits"}]), "refused"),
        (votable([{"access_url": "https://a.org/" + "x" * 100_000}]), "refused"),
    ],
)
def test_hostile_and_broken_answers_are_one_line(answer, reason):
    archive = Sia2Archive(kind="sia2", url="https://a.org/sia")
    with pytest.raises(TileError, match=reason) as told:
        list(read_answer(answer, archive))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize(
    "name", ["..%2F..%2Fetc%2Fpasswd", "%2Fabs.fits", "a%00b.fits", "x" * 3000]
)
def test_names_from_a_service_never_leave_the_cache(server, tmp_path, name):
    config = make_config(tmp_path, server, noise={"kind": "estimate"}, mask=None)
    (cell,) = cells(config)
    own = three_planes(server, cell)[0] | {"access_url": server.address(f"/{name}")}
    offer(server, [own])
    write_tile(tmp_path / "tile.fits", 0.1)
    server.files[f"/{name}"] = Served((tmp_path / "tile.fits").read_bytes())
    plan(config)
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    assert gather_fetched(config)["problems"] == 0
    cache = (tmp_path / "cache").resolve()
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name.endswith(".fits")]
    assert {p.name for p in files if not p.is_relative_to(cache)} == {"tile.fits", "wide.fits"}


def test_a_service_that_says_no_is_told_by_its_key(server, tmp_path):
    config = make_config(tmp_path, server)
    server.files["/sia"] = Served(b"", faults=[lambda h, _: (h.answer(403), True)[1]])
    with pytest.raises(UserError, match=r"surveys\.sharp\.archive\.url: .* answers 403") as told:
        find_tiles(config, "sharp")
    assert "\n" not in str(told.value)


def test_from_the_service_to_verified_tiles(server, tmp_path):
    config = make_config(tmp_path, server, noise={"kind": "rms", "hdu": "RMS"}, mask=None)
    (cell,) = cells(config)
    own = three_planes(server, cell)[0]
    offer(server, [own])
    write_tile(tmp_path / "tile.fits", 0.1)
    path = urlsplit(own["access_url"]).path
    server.files[path] = Served((tmp_path / "tile.fits").read_bytes())
    assert plan(config)["tiles"] == {"sharp": 1, "wide": 1}
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    assert gather_fetched(config) == {"planes": 4, "tiles": 2, "problems": 0}
    sharp, _ = read_tiles(config, fetched=True)
    assert sharp.origin["obs_publisher_did"].startswith("ivo://")
