"""From a real service of images to the report: DaCHS, which data centres of the VO run."""

import contextlib
import hashlib
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

import jaisp
from jaisp.archives.sia2 import find_tiles
from jaisp.archives.table import read_tiles
from jaisp.cache import cache_folder
from jaisp.config import Config, load_config
from jaisp.errors import UserError
from jaisp.fetch import BATCHES, fetch, foreseen, gather_fetched
from jaisp.files import sha256, write_receipt
from jaisp.plan import plan
from jaisp.simulate import simulate
from jaisp.sky import cells, plane_radec
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
from jaisp.transfer.part import Origin, Part
from jaisp.transfer.sizes import size_of
from tests.configs import write_config
from tests.services.dachs import Service, dachs, is_installed
from tests.services.local import need
from tests.workflow.conftest import TWO_PATCHES, Workflow

# One server, which takes a while to start, for all of these.
pytestmark = pytest.mark.xdist_group("dachs")

LACKING = (
    "DaCHS is not installed (Debian packages python3-gavo, postgresql-pgsphere, postgresql-q3c)"
)
RA, DEC = 53.13, -28.10
# Tiles of about 75″ by 50″: two rows of two, which overlap.
FIELD = {
    **{"run": "field", "patch": {"arcsec": 25.6}, "surveys": TWO_PATCHES["surveys"]},
    "sky": {"ra": RA, "dec": DEC, "width_arcmin": 102.4 / 60, "height_arcmin": 51.2 / 60},
    "simulate": {"tiles_per_side": 2, "overlap_arcsec": 40.0},
}
# Neither tells of subtypes or band names: names of files do.
NAMED = {"kind": "sia2", "band": "_([A-Za-z]+)_[0-9]", "tile": "_([0-9]+-[0-9]+-[0-9]+)"}
RUBIN = {
    **NAMED,
    "collection": "rubin",
    "science": {"hdu": "IMAGE"},
    "noise": {"kind": "variance", "hdu": "VARIANCE"},
    "mask": {"hdu": "MASK", "bad_bits": 13},
    "zeropoint": "MAGZERO",
}
EUCLID = {
    **NAMED,
    "collection": "euclid_q1",
    "science": {"name": r"[0-9]\.fits$"},
    "noise": {"kind": "rms", "name": r"_rms\.fits$", "hdu": 1},
    "mask": {"name": r"_flag\.fits$", "hdu": 1, "bad_bits": 13},
    "zeropoint": "MAGZERO",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    need(is_installed(), LACKING)
    folder = tmp_path_factory.mktemp("field")
    with contextlib.chdir(folder):
        simulate(load_config(write_config(folder, FIELD)))
    with dachs(folder / "results" / "field" / "simulated") as service:
        yield service


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own for each run, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def content(service: Service, east: float, north: float, patches: int) -> dict:
    """A config of so many patches in a row, about a place off the field's centre, arcsec."""
    wide = {"width_arcmin": 25.6 * patches / 60, "height_arcmin": 25.6 / 60}
    ra = RA + east / 3600 / np.cos(np.radians(DEC))
    sky = {"ra": float(ra), "dec": DEC + north / 3600, **wide}
    surveys = TWO_PATCHES["surveys"]
    archives = {"rubin": RUBIN, "euclid_q1": EUCLID}
    return TWO_PATCHES | {
        "sky": sky,
        "fetch": {"attempts": 2, "timeout_s": 20},
        "surveys": {
            name: surveys[name] | {"archive": archive | {"url": service.address}}
            for name, archive in archives.items()
        },
    }


def two_patches(service: Service) -> dict:
    """One patch lies deepest in one, the other in the other of the southern tiles."""
    return content(service, east=0, north=-6, patches=2)


def deepest(service: Service, config: Config, survey: str, band: str) -> set[str]:
    """Of which tile's edges is each patch farthest, by the images' own WCS, distortions and all."""
    (cell,) = cells(config)
    places = np.stack(plane_radec(cell, *cell.centres.T), axis=1)
    margin = {}
    for path in (service.root / "inputs/tiles/data" / survey / band).glob("*[0-9].fits"):
        with fits.open(path) as hdus:
            header = hdus[RUBIN["science"]["hdu"] if survey == "rubin" else 0].header
            x, y = WCS(header).all_world2pix(places, 0).T
        inside = (x, header["NAXIS1"] - 1 - x, y, header["NAXIS2"] - 1 - y)
        margin[path.stem.rpartition("_")[2]] = np.min(inside, axis=0)
    assert len(margin) == 4
    names = np.array(list(margin))
    return set(names[np.argmax(list(margin.values()), axis=0)])


@pytest.mark.parametrize(
    ("east", "north", "patches", "expected"),
    [
        (0, -6, 2, {"00-00-00", "00-00-01"}),
        (0, 6, 2, {"00-01-00", "00-01-01"}),
        (32, 6, 1, {"00-01-00"}),
        (-32, -6, 1, {"00-00-01"}),
    ],
)
def test_exactly_the_tiles_that_the_sky_needs_are_found(
    service, place, east, north, patches, expected
):
    config = load_config(write_config(place, content(service, east, north, patches)))
    plan(config)
    found: dict[tuple[str, str], set[str]] = {}
    for tile in read_tiles(config):
        found.setdefault((tile.survey, tile.band), set()).add(tile.id)
    bands = [("rubin", "g"), ("rubin", "r"), ("euclid_q1", "VIS")]
    assert found == dict.fromkeys(bands, expected)
    assert all(deepest(service, config, *band) == expected for band in bands)


def test_planes_are_told_by_name(service, place):
    config = load_config(write_config(place, two_patches(service)))
    for tile in find_tiles(config, "euclid_q1"):
        names = [Path(plane.path).name for plane in (tile.science, tile.noise, tile.mask)]
        stem = f"euclid_q1_VIS_{tile.id}"
        assert names == [f"{stem}.fits", f"{stem}_rms.fits", f"{stem}_flag.fits"]
        assert tile.origin["obs_collection"] == "euclid_q1"
        assert tile.origin["obs_publisher_did"].startswith("ivo://org.example.tiles/")
    for tile in find_tiles(config, "rubin"):
        assert tile.science.path == tile.noise.path == tile.mask.path


def fetch_all(config: Config) -> dict:
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    return gather_fetched(config)


def test_each_file_is_brought_once_and_whole(service, place):
    config = load_config(write_config(place, two_patches(service)))
    plan(config)
    names = {Path(row["file"]).name for row in foreseen(config)}
    assert len(names) == 2 * (2 + 3)
    before = {name: Counter(service.requests(name)) for name in names}
    assert fetch_all(config) == {"planes": 18, "tiles": 6, "problems": 0}
    for name in names:
        assert Counter(service.requests(name)) - before[name] == {("GET", 200): 1}
        (kept,) = cache_folder().rglob(f"*-{name}")
        assert sha256(kept) == sha256(service.file(name)) == known_sha256(service, name)
    fetch_all(config)
    for name in names:
        assert (Counter(service.requests(name)) - before[name]).total() == 1


def known_sha256(service: Service, name: str) -> str:
    """What was written down of an image when it was made."""
    listing = Table.read(service.tiles / "listing.ecsv")
    found = {
        str(row[f"{plane}_sha256"])
        for row in listing
        for plane in ("science", "noise", "mask")
        if Path(str(row[f"{plane}_path"])).name == name
    }
    (digest,) = found
    return digest


NAME = "rubin_g_00-00-00.fits"


@pytest.fixture
def wanted(service, place):
    """One image."""
    host = service.address.partition("/__system__")[0]
    return Wanted("rubin", f"{host}/getproduct/tiles/data/rubin/g/{NAME}")


def begin(wanted: Wanted, content: bytes, modified: str, length: int) -> None:
    """Leave a part in the cache, as a process that was killed does."""
    key = hashlib.sha256(f"{wanted.address} {wanted.sha256}".encode()).hexdigest()[:32]
    part = Part(cache_folder() / wanted.survey / "downloads" / key)
    part.begin(Origin(wanted.address, modified, length))
    part.path.write_bytes(content)


def brought(service: Service, wanted: Wanted, config: Config) -> list[tuple[str, int]]:
    """Bring the image; returns what was asked for."""
    before = len(service.requests(NAME))
    entry = download(wanted, config.fetch, verify_structure)
    assert entry["sha256"] == known_sha256(service, NAME)
    return service.requests(NAME)[before:]


def test_a_part_is_gone_on_with(service, place, wanted):
    config = load_config(write_config(place, two_patches(service)))
    with urlopen(wanted.address) as answer:
        whole, modified = answer.read(), answer.headers["Last-Modified"]
    begin(wanted, whole[: len(whole) // 2], modified, len(whole))
    assert brought(service, wanted, config) == [("GET", 206)]


def test_a_part_of_an_earlier_file_is_begun_anew(service, place, wanted):
    """DaCHS doesn't know If-Range: it sends the rest of whatever it has now."""
    config = load_config(write_config(place, two_patches(service)))
    about = service.file(NAME).stat()
    earlier = service.file(NAME).read_bytes()[: about.st_size // 2 - 5000] + bytes(5000)
    begin(wanted, earlier, formatdate(about.st_mtime - 86400, usegmt=True), about.st_size)
    assert brought(service, wanted, config) == [("GET", 206), ("GET", 200)]


def test_how_long_files_are_is_told_about_by_the_service_and_exactly_by_the_server(
    service, place, wanted
):
    config = load_config(write_config(place, two_patches(service)))
    counts = plan(config)
    rows = foreseen(config)
    for row in rows:
        length = service.file(Path(row["file"]).name).stat().st_size
        assert row["estimate"]
        assert abs(row["bytes"] - length) < 0.03 * length + 1024
    assert counts["bytes"] == sum(row["bytes"] for row in rows)
    assert size_of(wanted.address, config.fetch) == service.file(NAME).stat().st_size
    assert size_of(f"{wanted.address}x", config.fetch) is None


@pytest.mark.parametrize(
    ("query", "reason"),
    [("?MAXREC=1", "more images than it tells at once"), ("?POL=&BAND=x", "UsageFault")],
)
def test_what_the_service_refuses_is_one_line(service, place, query, reason):
    refused = two_patches(service)
    refused["surveys"]["rubin"]["archive"]["url"] += query
    config = load_config(write_config(place, refused))
    with pytest.raises(UserError, match=rf"surveys\.rubin\.archive\.url: .*{reason}") as told:
        find_tiles(config, "rubin")
    assert "\n" not in str(told.value)


@pytest.mark.workflow
def test_a_run_from_the_service_ends_with_its_report(service, tmp_path):
    workflow = Workflow(tmp_path, two_patches(service))
    names = {path.name for path in (service.root / "inputs/tiles/data").rglob("*.fits")}
    before = {name: Counter(service.requests(name)) for name in names}
    done = workflow.run("--cores", "1")
    assert done.returncode == 0, done.stderr[-5000:]
    asked = {name: Counter(service.requests(name)) - before[name] for name in names}
    assert {name for name in names if asked[name]} == {name for name in names if "_00-00-0" in name}
    assert all(asked[name] == {("GET", 200): 1} for name in names if asked[name])
    assert (workflow.results / "report.html").is_file()
    store = jaisp.open(workflow.results / "patches.zarr")
    assert (len(store), sorted(store.surveys)) == (2, ["euclid_q1", "rubin"])
    for survey in store.surveys:
        for patch in store:
            assert np.isfinite(patch[survey].flux).mean() > 0.95
    assert len(Table.read(workflow.results / "problems.ecsv")) == 0
