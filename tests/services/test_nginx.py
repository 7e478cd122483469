"""Files from a server that nobody here wrote."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from jaisp.archives.table import read_tiles
from jaisp.cache import cache_folder
from jaisp.config import load_config
from jaisp.config.fetch import FetchConfig
from jaisp.config.survey import Credentials
from jaisp.errors import TileError, UserError
from jaisp.fetch import BATCHES, fetch, gather_fetched
from jaisp.files import sha256, write_receipt
from jaisp.plan import plan
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
from jaisp.transfer.credentials import authorization
from tests.configs import CENTRE, small_config, write_config, write_tile
from tests.services.local import need
from tests.services.nginx import LOGIN, is_installed, nginx

LACKING = "nginx is not installed (Debian package nginx-light)"

SETTINGS = FetchConfig(attempts=2, timeout_s=5)


@pytest.fixture
def address(tmp_path, monkeypatch):
    need(is_installed(), LACKING)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    (root / "private").mkdir(parents=True)
    pixels = np.random.default_rng(1).normal(size=(1500, 1000)).astype(np.float32)
    for name in ("a.fits", "private/b.fits"):
        fits.PrimaryHDU(pixels).writeto(root / name, checksum=True)
    with nginx(root, tmp_path / "nginx") as address:
        yield address


def test_a_file_comes_whole(address, tmp_path):
    entry = download(Wanted("hsc", f"{address}/a.fits"), SETTINGS, verify_structure)
    assert entry["sha256"] == sha256(tmp_path / "root" / "a.fits")


def test_behind_a_login(address, tmp_path, monkeypatch):
    wanted = Wanted("hsc", f"{address}/private/b.fits")
    with pytest.raises(TileError, match=r"401 .*needs a credential"):
        download(wanted, SETTINGS, verify_structure)
    monkeypatch.setenv("HSC", LOGIN + "x")
    wrong = authorization(Credentials(login_env="HSC"), "archive")
    with pytest.raises(TileError, match=r"401 .*refuses our credential"):
        download(wanted, SETTINGS, verify_structure, wrong)
    monkeypatch.setenv("HSC", LOGIN)
    right = authorization(Credentials(login_env="HSC"), "archive")
    entry = download(wanted, SETTINGS, verify_structure, right)
    assert entry["sha256"] == sha256(tmp_path / "root" / "private" / "b.fits")
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert " 206 " not in log


GET = """
import sys
from jaisp.config.fetch import FetchConfig
from jaisp.structure import verify_structure
from jaisp.transfer import Wanted, download
download(Wanted("hsc", sys.argv[1]), FetchConfig(), verify_structure)
"""


def test_killed_on_the_way_it_goes_on_where_it_was(address, tmp_path):
    """6 MB at 4 MB a second."""
    command = [sys.executable, "-c", GET, f"{address}/slow/a.fits"]
    run = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    part = None
    while part is None or part.stat().st_size < 500_000:
        part = next(iter(cache_folder().rglob("*.part")), None)
        time.sleep(0.01)
        assert run.poll() is None
    run.kill()
    run.wait()
    entry = download(Wanted("hsc", f"{address}/slow/a.fits"), SETTINGS, verify_structure)
    assert entry["sha256"] == sha256(tmp_path / "root" / "a.fits")
    lines = (tmp_path / "nginx" / "access.log").read_text().splitlines()
    assert " 206 " in lines[-1]


def bricks(folder, address):
    """A table of one tile, which two surveys have behind a login, and their config."""
    table = Table({"brick": ["b1"], "ra": [CENTRE[0]], "dec": [CENTRE[1]]})
    table.write(folder / "bricks.csv")
    content = small_config(fetch={"attempts": 2, "timeout_s": 5})
    for name, pixel_arcsec in (("sharp", 0.1), ("wide", 0.2)):
        write_tile(folder / "root" / "private" / f"{name}-b1-r.fits", pixel_arcsec)
        content["surveys"][name]["archive"] = {
            "kind": "template",
            "login_env": f"{name.upper()}_LOGIN",
            "tiles": "bricks.csv",
            "covers": {"ra": "ra", "dec": "dec", "width_arcmin": 2},
            "tile": "{brick}",
            "science": {"url": f"{address}/private/{name}-{{brick}}-{{band}}.fits"},
            "noise": {"kind": "rms", "hdu": "RMS"},
            "zeropoint": "MAGZERO",
        }
    return load_config(write_config(folder, content))


def fetch_all(config):
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))


def test_a_template_behind_a_login(address, tmp_path, monkeypatch):
    """With one survey's word wrong: one line each says which, and where the login comes from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARP_LOGIN", LOGIN)
    monkeypatch.setenv("WIDE_LOGIN", LOGIN + "x")
    config = bricks(tmp_path, address)
    assert plan(config)["tiles"] == {"sharp": 1, "wide": 1}
    fetch_all(config)
    with pytest.raises(UserError, match=r"surveys\.wide: no good tile .* refuses our credential"):
        gather_fetched(config)
    (problem,) = Table.read(config.results / "problems.ecsv")
    assert (problem["survey"], problem["band"], problem["tile"]) == ("wide", "r", "b1")
    reason = problem["reason"]
    assert "answers 401 Unauthorized" in reason
    assert f"{address}/private/wide-b1-r.fits" in reason
    assert "surveys.wide.archive.login_env, the variable WIDE_LOGIN" in reason
    assert "\n" not in reason
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert sum("wide-b1-r.fits" in line for line in log.splitlines()) == 1
    written = b"".join(p.read_bytes() for p in config.results.rglob("*") if p.is_file())
    assert LOGIN.partition(":")[2].encode() not in written
    monkeypatch.setenv("WIDE_LOGIN", LOGIN)
    fetch_all(config)
    assert gather_fetched(config) == {"planes": 4, "tiles": 2, "problems": 0}
    for tile in read_tiles(config, fetched=True):
        served = tmp_path / "root" / "private" / f"{tile.survey}-b1-r.fits"
        assert tile.science.path.read_bytes() == served.read_bytes()
