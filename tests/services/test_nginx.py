"""Files from a server that nobody here wrote."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits

from jaisp.cache import cache_folder
from jaisp.config.fetch import FetchConfig
from jaisp.config.survey import Credentials
from jaisp.errors import TileError
from jaisp.fetch import _verify_structure
from jaisp.files import sha256
from jaisp.transfer import Wanted, download
from jaisp.transfer.credentials import authorization
from tests.services.nginx import LOGIN, is_installed, nginx

LACKING = "nginx is not installed (Debian package nginx-light)"

SETTINGS = FetchConfig(attempts=2, timeout_s=5)


@pytest.fixture
def address(tmp_path, monkeypatch):
    if not is_installed():
        if os.environ.get("JAISP_REQUIRE_REAL_DATA"):
            pytest.fail(LACKING)
        pytest.skip(LACKING)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    (root / "private").mkdir(parents=True)
    pixels = np.random.default_rng(1).normal(size=(1500, 1000)).astype(np.float32)
    for name in ("a.fits", "private/b.fits"):
        fits.PrimaryHDU(pixels).writeto(root / name, checksum=True)
    with nginx(root, tmp_path / "nginx") as address:
        yield address


def test_a_file_comes_whole(address, tmp_path):
    entry = download(Wanted("hsc", f"{address}/a.fits"), SETTINGS, _verify_structure)
    assert entry["sha256"] == sha256(tmp_path / "root" / "a.fits")


def test_behind_a_login(address, tmp_path, monkeypatch):
    wanted = Wanted("hsc", f"{address}/private/b.fits")
    with pytest.raises(TileError, match=r"401 .*needs a credential"):
        download(wanted, SETTINGS, _verify_structure)
    monkeypatch.setenv("HSC", LOGIN + "x")
    wrong = authorization(Credentials(login_env="HSC"), "archive")
    with pytest.raises(TileError, match=r"401 .*needs a credential"):
        download(wanted, SETTINGS, _verify_structure, wrong)
    monkeypatch.setenv("HSC", LOGIN)
    right = authorization(Credentials(login_env="HSC"), "archive")
    entry = download(wanted, SETTINGS, _verify_structure, right)
    assert entry["sha256"] == sha256(tmp_path / "root" / "private" / "b.fits")
    log = (tmp_path / "nginx" / "access.log").read_text()
    assert " 206 " not in log


GET = """
import sys
from jaisp.config.fetch import FetchConfig
from jaisp.fetch import _verify_structure
from jaisp.transfer import Wanted, download
download(Wanted("hsc", sys.argv[1]), FetchConfig(), _verify_structure)
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
    entry = download(Wanted("hsc", f"{address}/slow/a.fits"), SETTINGS, _verify_structure)
    assert entry["sha256"] == sha256(tmp_path / "root" / "a.fits")
    lines = (tmp_path / "nginx" / "access.log").read_text().splitlines()
    assert " 206 " in lines[-1]
