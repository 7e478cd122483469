"""Files from public buckets, by moto's S3, which nobody here wrote."""

import io
import json
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits

from jaisp.archives.table import read_tiles
from jaisp.cache import cache_folder
from jaisp.config import load_config
from jaisp.config.fetch import FetchConfig
from jaisp.errors import TileError, UserError
from jaisp.fetch import BATCHES, fetch, foreseen, gather_fetched
from jaisp.files import sha256, write_receipt
from jaisp.plan import plan
from jaisp.sky import cells
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
from jaisp.transfer.body import HELD
from jaisp.transfer.part import machine_start
from jaisp.transfer.sizes import size_of
from tests.archives.test_sia2 import make_config as sia2_config
from tests.archives.test_sia2 import offer, three_planes
from tests.archives.test_template import bricks
from tests.configs import small_config, write_config, write_tile
from tests.services.moto import BUCKET, started
from tests.services.relay import relayed
from tests.transfer.server import serving

KILLS = 24
HEAD = 1000  # bytes that an answer begins with, at most
SIDE = 400  # pixels: 640 kB a file


@pytest.fixture
def relay(store):
    with relayed(store.port) as relay:
        yield relay


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(sys.modules["jaisp.transfer.download"], "FIRST_WAIT_S", 0.001)


def image(seed: int, side: int = SIDE) -> bytes:
    pixels = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    handle = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(handle, checksum=True)
    return handle.getvalue()


def get(address, endpoint, survey="ps1", attempts=3, **more):
    wanted = {name: more.pop(name) for name in ("bytes", "sha256") if name in more}
    settings = FetchConfig(attempts=attempts, timeout_s=2, s3_endpoint=endpoint, **more)
    return download(Wanted(survey, address, **wanted), settings, verify_structure)


def content_of(entry) -> bytes:
    return (cache_folder() / entry["file"]).read_bytes()


def parts() -> list:
    return [path for path in cache_folder().rglob("*.part") if path.stat().st_size]


def written() -> int:
    return sum(path.stat().st_size for path in parts())


def test_an_object_comes_whole_and_once(store, relay, tmp_path):
    address = store.put("rings/a.fits", content := image(1))
    (tmp_path / "a.fits").write_bytes(content)
    entry = get(address, relay.address)
    assert content_of(entry) == content
    assert entry["sha256"] == sha256(tmp_path / "a.fits")
    assert entry["file"].endswith("a.fits")
    assert not get(address, relay.address)["fetched"]
    (asked,) = relay.requests()
    assert asked.startswith(f"get /{BUCKET}/rings/a.fits ")
    assert "user-agent: jaisp/" in asked


@pytest.mark.parametrize("key", ["a b.fits", "J1234+5678.fits", "a%20b.fits", "é/~x#1?y=2.fits"])
def test_a_key_stands_in_an_address_as_it_is(store, key):
    address = store.put(key, content := image(2))
    assert content_of(get(address, store.address)) == content
    assert size_of(address, FetchConfig(s3_endpoint=store.address)) == len(content)


def test_nobody_says_who_they_are(store, relay, tmp_path, monkeypatch):
    secret = "correct-horse"
    nowhere = "http://127.0.0.1:9"
    (tmp_path / ".aws").mkdir()
    for name in ("credentials", "config"):
        text = f"[default]\naws_access_key_id={secret}\naws_secret_access_key={secret}\n"
        (tmp_path / ".aws" / name).write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ACCESS_KEY_ID", "SESSION_TOKEN", "SSE_CUSTOMER_KEY_BASE64", "REQUEST_PAYER"):
        monkeypatch.setenv(f"AWS_{name}", "requester" if name == "REQUEST_PAYER" else secret)
    for name in ("ENDPOINT", "ENDPOINT_URL", "ENDPOINT_URL_S3", "PROXY_URL", "METADATA_ENDPOINT"):
        monkeypatch.setenv(f"AWS_{name}", nowhere)
    for name in ("S3_EXPRESS", "VIRTUAL_HOSTED_STYLE_REQUEST", "ALLOW_INVALID_CERTIFICATES"):
        monkeypatch.setenv(f"AWS_{name}", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "false")
    monkeypatch.setenv("AWS_REGION", "eu-south-9")
    address = store.put("b.fits", content := image(3))
    assert content_of(get(address, relay.address)) == content
    (asked,) = relay.requests()
    assert secret not in asked
    assert "authorization" not in asked
    assert "x-amz" not in asked


def test_cut_on_the_way_it_goes_on_with_the_same_object(store, relay):
    address = store.put("c.fits", content := image(4))
    relay.stops = [200_000, 100_000, 5_000]
    assert content_of(get(address, relay.address)) == content
    first, *others = relay.requests()
    assert "range:" not in first
    assert len(others) == 3
    assert all("range: bytes=" in asked and 'if-match: "' in asked for asked in others)
    starts = [int(asked.partition("range: bytes=")[2].partition("-")[0]) for asked in others]
    assert starts == sorted(starts)
    assert starts[0] > 150_000


def test_a_silent_store_is_asked_again(store, relay):
    address = store.put("d.fits", content := image(5))
    relay.stops, relay.holds = [300_000], True
    assert content_of(get(address, relay.address)) == content
    assert "range: bytes=" in relay.requests()[-1]


def test_what_has_come_is_kept_for_the_next_run(store, relay):
    address = store.put("e.fits", content := image(6))
    relay.stops = [300_000]
    with pytest.raises(TileError, match=rf"^{BUCKET}: .*bytes missing"):
        get(address, relay.address, attempts=1)
    (part,) = parts()
    note = json.loads(part.with_suffix(".json").read_text())["origin"]
    assert note["address"] == address
    assert note["length"] == len(content)
    assert content.startswith(part.read_bytes())
    before = len(relay.requests())
    assert content_of(get(address, relay.address)) == content
    (asked,) = relay.requests()[before:]
    assert f"if-match: {note['validator']}" in asked
    assert not parts()


def test_an_object_that_changes_on_the_way_is_begun_anew(store, relay):
    address = store.put("f.fits", image(7))
    relay.stops = [300_000]
    with pytest.raises(TileError, match="bytes missing"):
        get(address, relay.address, attempts=1)
    store.put("f.fits", other := image(8))
    assert content_of(get(address, relay.address)) == other
    assert ["if-match" in asked for asked in relay.requests()] == [False, True, False]


def test_a_part_that_is_whole_is_not_asked_for_again(store, relay):
    address = store.put("g.fits", image(9))
    entry = get(address, relay.address, attempts=1)
    # As if it had been stopped before its name.
    (index,) = (cache_folder() / "ps1" / "downloads").glob("[!.]*.json")
    tag = "the-one-it-was"
    part = index.with_suffix(".part")
    (cache_folder() / entry["file"]).rename(part)
    origin = {"address": address, "validator": tag, "length": entry["bytes"]}
    note = {"origin": origin, "machine": platform.node(), "start": machine_start()}
    index.write_text(json.dumps(note))
    assert get(address, relay.address, attempts=1)["sha256"] == entry["sha256"]
    assert len(relay.requests()) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"s3://{BUCKET}/none.fits", f"404 NoSuchKey: s3://{BUCKET}/none.fits is not there"),
        ("s3://no-such-bucket/a.fits", "404 NoSuchBucket: s3://no-such-bucket/a.fits is not there"),
        (
            f"s3://{BUCKET}/private.fits",
            rf"403 .*: s3://{BUCKET}/private.fits is not there, or not ",
        ),
        (f"s3://{BUCKET}/a/../b.fits", "refused"),
    ],
)
def test_what_no_other_try_mends_is_given_up_at_once(store, relay, address, said):
    store.put("private.fits", b"x", public=False)
    with pytest.raises(TileError, match=said) as told:
        get(address, relay.address, attempts=9)
    assert "\n" not in str(told.value)
    assert len(relay.requests()) == (0 if ".." in address else 1)
    assert size_of(address, FetchConfig(s3_endpoint=relay.address)) is None


def test_a_store_that_is_not_there_is_said_so(store):
    with pytest.raises(TileError, match=rf"^{BUCKET}: .*not connect to server$"):
        get(f"s3://{BUCKET}/a.fits", "http://127.0.0.1:9", attempts=2)


def test_a_store_that_can_t_prove_who_it_is_is_refused(store, monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_INVALID_CERTIFICATES", "true")
    # With a certificate of its own making.
    with started("-s") as port, pytest.raises(TileError, match="certificate"):
        get(f"s3://{BUCKET}/a.fits", f"https://127.0.0.1:{port}", attempts=9)


def test_too_long_and_no_room(store, relay, monkeypatch):
    address = store.put("h.fits", content := image(10))
    with pytest.raises(TileError, match=r"more than fetch\.most_bytes"):
        get(address, relay.address, most_bytes=10_000)
    with pytest.raises(TileError, match="bytes long, not 7 as the archive said"):
        get(address, relay.address, attempts=1, bytes=7)
    usage = type("Usage", (), {"free": 1_000_000})
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(TileError, match=r"GB are left .* JAISP_CACHE"):
            get(address, relay.address)
    assert not parts()
    assert len(relay.requests()) == 3
    assert get(address, relay.address)["bytes"] == len(content)


def test_what_is_no_fits_file_or_has_another_checksum_is_not_kept(store):
    for content in (b"<html>sorry</html>", image(11)[:-2880]):
        address = store.put("i.fits", content)
        with pytest.raises(TileError, match=r"i\.fits"):
            get(address, store.address, attempts=2)
    address = store.put("i.fits", image(11))
    with pytest.raises(TileError, match="differs from the archive's checksum"):
        get(address, store.address, attempts=2, sha256="0" * 64)
    assert not list(cache_folder().rglob("*.fits"))


def test_two_at_once_get_it_once(store, relay):
    address = store.put("j.fits", image(12))
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(lambda _: get(address, relay.address), range(6)))
    assert sum(entry["fetched"] for entry in entries) == 1
    assert len(relay.requests()) == 1


# Forks a download for every line, so that the package is imported once.
FORKING = """
import os, sys
from jaisp.config.fetch import FetchConfig
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
address, endpoint = sys.argv[1:]
print("ready", flush=True)
for survey in sys.stdin:
    child = os.fork()
    if child == 0:
        settings = FetchConfig(s3_endpoint=endpoint)
        download(Wanted(survey.strip(), address), settings, verify_structure)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_killed_at_any_place_it_goes_on(store, relay):
    rng = np.random.default_rng(0)
    address = store.put("k.fits", content := image(13, 2 * SIDE))
    places = rng.integers(HEAD, len(content), KILLS).tolist()
    relay.holds, gone_on = True, 0
    command = [sys.executable, "-c", FORKING, address, relay.address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as run:
        assert run.stdout.readline() == "ready\n"
        for number, place in enumerate(places):
            relay.stops = [place]
            relay.held.clear()
            run.stdin.write(f"s{number}\n")
            run.stdin.flush()
            child = int(run.stdout.readline())
            assert relay.held.wait(60)
            # Half of them when all that was passed is written, but for what is held.
            while number % 2 and written() + HELD < place - HEAD:
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
            assert int(run.stdout.readline()) == signal.SIGKILL
            assert not list(cache_folder().rglob("*.fits"))
            has_begun = bool(parts())
            entry = get(address, relay.address, survey=f"s{number}")
            assert content_of(entry) == content
            assert ("range: bytes=" in relay.requests()[-1]) == has_begun
            gone_on += has_begun
            (cache_folder() / entry["file"]).unlink()
        run.stdin.close()
    assert gone_on >= KILLS / 3


def fetch_all(config):
    plan(config)
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    return gather_fetched(config)


def put_tile(store, folder, key, pixel_arcsec):
    write_tile(folder / "put.fits", pixel_arcsec)
    content = (folder / "put.fits").read_bytes()
    (folder / "put.fits").unlink()
    return store.put(key, content), len(content)


def test_a_run_of_two_tiles_whose_archives_are_buckets(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, sharp = put_tile(store, tmp_path, "dr1/sharp one.fits", 0.1)
    address, wide = put_tile(store, tmp_path, "dr2/wide.fits", 0.2)
    content = small_config(fetch={"s3_endpoint": store.address, "attempts": 1})
    archive = content["surveys"]["sharp"]["archive"]
    archive["root"] = f"s3://{BUCKET}/dr1/"
    archive["images"][0]["science"]["path"] = "sharp one.fits"
    content["surveys"]["wide"]["archive"]["images"][0]["science"]["path"] = address
    config = load_config(write_config(tmp_path, content))
    assert plan(config)["tiles"] == {"sharp": 1, "wide": 1}
    assert [(row["bytes"], row["here"]) for row in foreseen(config)] == [
        (sharp, False),
        (wide, False),
    ]
    assert fetch_all(config) == {"planes": 4, "tiles": 2, "problems": 0}
    assert all(row["here"] for row in foreseen(config))


def test_what_a_bucket_lacks_is_a_problem_that_names_it(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = small_config(fetch={"s3_endpoint": store.address})
    content["surveys"]["sharp"]["archive"]["root"] = f"s3://{BUCKET}/nothing"
    write_tile(tmp_path / "wide.fits", 0.2)
    config = load_config(write_config(tmp_path, content))
    with pytest.raises(UserError, match=f"NoSuchKey: s3://{BUCKET}/nothing/sharp.fits"):
        fetch_all(config)


def test_a_template_whose_table_images_and_checksums_are_in_a_bucket(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bricks().write(tmp_path / "bricks.csv")
    table = store.put("ps1/bricks.csv", (tmp_path / "bricks.csv").read_bytes())
    write_tile(tmp_path / "tile.fits", 0.1)
    for plane in ("unconv", "wt"):
        store.put(f"ps1/007/b11.stk.r.{plane}.fits", (tmp_path / "tile.fits").read_bytes())
    digest = sha256(tmp_path / "tile.fits")
    store.put("ps1/b11.sha256sum", f"{digest}  b11.stk.r.unconv.fits\n".encode())
    write_tile(tmp_path / "wide.fits", 0.2)
    content = small_config(fetch={"s3_endpoint": store.address})
    images = f"s3://{BUCKET}/ps1/{{tract:03d}}/{{brickname}}.stk.{{band}}"
    content["surveys"]["sharp"]["archive"] = {
        "kind": "template",
        "tiles": table,
        "tile": "{brickname}",
        "science": {"url": f"{images}.unconv.fits"},
        "noise": {"kind": "variance", "url": f"{images}.wt.fits"},
        "checksums": f"s3://{BUCKET}/ps1/{{brickname}}.sha256sum",
        "zeropoint": 25.0,
    }
    config = load_config(write_config(tmp_path, content))
    assert fetch_all(config) == {"planes": 4, "tiles": 2, "problems": 0}
    (sharp, _) = read_tiles(config)
    assert sharp.science.path == f"s3://{BUCKET}/ps1/007/b11.stk.r.unconv.fits"
    assert sharp.science.sha256 == digest


def told(address):
    """As IRSA tells where an image lies in Amazon's cloud."""
    key = address.rpartition("/")[2]
    where = {"bucket_name": BUCKET, "key": f"q1/MER/{key}", "region": "us-east-1"}
    return json.dumps({"aws": where})


def test_a_service_names_images_in_a_bucket(store, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        config = sia2_config(tmp_path, server, cloud_access=True, noise={"kind": "estimate"})
        settings = config.fetch.model_copy(update={"s3_endpoint": store.address})
        config = config.model_copy(update={"fetch": settings})
        (cell,) = cells(config)
        rows = [
            own | {"cloud_access": told(own["access_url"])} for own in three_planes(server, cell)
        ]
        offer(server, rows)
        for own in (rows[0], rows[2]):
            put_tile(store, tmp_path, f"q1/MER/{own['access_url'].rpartition('/')[2]}", 0.1)
        assert fetch_all(config)["problems"] == 0
    sharp, _ = read_tiles(config)
    assert sharp.science.path.startswith(f"s3://{BUCKET}/q1/MER/EUC_MER_BGSUB")
    assert sharp.mask.path.startswith(f"s3://{BUCKET}/q1/MER/EUC_MER_MOSAIC-FLAG")
    assert "cloud_access" not in caplog.text
