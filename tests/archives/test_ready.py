"""The ready configs, against answers with the columns and names that their archives document."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import yaml
from astropy.table import Table

from jaisp.archives import find_tiles
from jaisp.config import Config, parse_config
from jaisp.sky import cells
from tests.archives.test_sia2 import square, votable
from tests.transfer.server import Served, serving

READY = Path(__file__).resolve().parents[2] / "config"
ARCHIVES = (
    "https://irsa.ipac.caltech.edu",
    "https://data.lsst.cloud",
    "https://portal.nersc.gov",
)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RSP_TOKEN", "of-a-test")
    with serving() as server:
        yield server


def ready(name: str, server) -> Config:
    """A ready config, its archives' hosts replaced by the test's own server."""
    text = (READY / name).read_text(encoding="utf-8")
    for host in ARCHIVES:
        text = text.replace(host, server.address(""))
    return parse_config(yaml.safe_load(text), READY / name)


def mosaic(server, tile, folder, band, kind, region):
    """A row as IRSA tells Euclid's mosaics, and those of other telescopes on the same tiles."""
    subtype, name = kind
    return {
        "access_url": server.address(
            f"/ibe/data/euclid/q1/MER/{tile}/{folder}/EUC_MER_{name}_TILE{tile}-27C4DD_"
            "20241025T124812.358980Z_00.00.fits"
        ),
        "access_format": "image/fits",
        "obs_id": f"{tile}_{folder}",
        "dataproduct_subtype": subtype,
        "energy_bandpassname": band,
        "obs_collection": "euclid_DpdMerBksMosaic",
        "obs_release_date": "2025-05-01 00:00:00",
        "s_region": region,
    }


def mosaics(server, config, tile="102158277"):
    (cell,) = cells(config)
    region = square(cell, 0, 960)
    rows = []
    for folder, band, name in (
        ("VIS", "VIS", "VIS"), ("NISP", "Y", "NIR-Y"), ("NISP", "J", "NIR-J"),
        ("NISP", "H", "NIR-H"), ("HSC", "G", "WISHES-G"), ("HSC", "Z", "WISHES-Z"),
        ("MEGACAM", "R", "CFIS-R"), ("GPC", "I", "PANSTARRS-I"),
    ):  # fmt: skip
        for kind in (
            ("science", f"BGSUB-MOSAIC-{name}"),
            ("noise", f"MOSAIC-{name}-RMS"),
            ("auxiliary", f"MOSAIC-{name}-FLAG"),
            ("psf", f"GRID-PSF-{name}"),
        ):
            rows.append(mosaic(server, tile, folder, band, kind, region))
    return rows


@pytest.mark.parametrize("name", ["edfn_hsc_euclid.yaml", "ecdfs_rubin_euclid.yaml"])
def test_euclid_s_mosaics_with_their_noise_in_squares(name, server):
    config = ready(name, server)
    server.files["/SIA"] = Served(votable(mosaics(server, config)))
    tiles = find_tiles(config, "euclid_q1")
    assert [(tile.band, tile.id) for tile in tiles] == [
        (b, "102158277") for b in ["VIS", "Y", "J", "H"]
    ]
    for tile in tiles:
        token = tile.band if tile.band == "VIS" else f"NIR-{tile.band}"
        assert f"BGSUB-MOSAIC-{token}_" in tile.science.path
        assert f"MOSAIC-{token}-RMS_" in tile.noise.path
        asked = parse_qs(urlsplit(tile.science.path).query)
        assert asked["size"][0].endswith("arcsec")
        # 12′, the corners of the patches, and half a minute of arc on each side.
        assert 720 + 60 < float(asked["size"][0].removesuffix("arcsec")) < 720 + 60 + 130
        assert asked["gzip"] == ["false"]
        assert (tile.noise_kind, tile.zeropoint, tile.linked) == ("rms", "MAGZERO", False)
        assert tile.origin["release"] == "Euclid Q1"


def test_hsc_on_euclid_s_tiles(server):
    config = ready("edfn_hsc_euclid.yaml", server)
    server.files["/SIA"] = Served(votable(mosaics(server, config)))
    tiles = find_tiles(config, "hsc")
    assert [tile.band for tile in tiles] == ["g", "z"]
    assert all("WISHES-" in plane.path for t in tiles for plane in (t.science, t.noise))


def test_rubin_s_coadds_by_tract_and_patch(server):
    config = ready("ecdfs_rubin_euclid.yaml", server)
    (cell,) = cells(config)
    rows = [
        {
            "access_url": server.address(f"/api/datalink/links?ID=butler%3A%2F%2Fdp1%2F{n}-{band}"),
            "access_format": "application/x-votable+xml;content=datalink",
            "obs_id": f"{n}-{band}",
            "dataproduct_subtype": "lsst.deep_coadd",
            "obs_collection": "LSST.DP1",
            "lsst_tract": 5063,
            "lsst_patch": n,
            "lsst_band": band,
            "s_region": square(cell, x, 340),
        }
        for n, x in ((13, -300), (14, 300), (15, 1500))
        for band in "ugrizy"
    ]
    server.files["/api/sia/dp1/query"] = Served(votable(rows))
    tiles = find_tiles(config, "rubin")
    assert {tile.band for tile in tiles} == set("ugrizy")
    assert {tile.id for tile in tiles} == {"5063-13", "5063-14"}
    for tile in tiles:
        assert tile.linked
        assert (tile.science.hdu, tile.noise.hdu, tile.mask.hdu) == ("IMAGE", "VARIANCE", "MASK")
        assert tile.science.path == tile.noise.path == tile.mask.path
        assert tile.bad_bits == 1 + 2 + 8 + 256


def test_legacy_bricks_with_their_checksums(server, tmp_path):
    config = ready("cosmos_hst_legacy.yaml", server)
    ra, dec = 150.1192, 2.2058
    sides = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    bricks = Table(
        {
            "brickname": [f"150{1 + i}p02{2 + j}" for i, j in sides],
            "ra1": [ra + 0.25 * i - 0.13 for i, _ in sides],
            "ra2": [ra + 0.25 * i + 0.13 for i, _ in sides],
            "dec1": [dec + 0.25 * j - 0.13 for _, j in sides],
            "dec2": [dec + 0.25 * j + 0.13 for _, j in sides],
        }
    )
    bricks.write(tmp_path / "bricks.fits")
    root = "/cfs/cosmo/data/legacysurvey/dr10/south"
    server.files[f"{root}/survey-bricks-dr10-south.fits.gz"] = Served(
        (tmp_path / "bricks.fits").read_bytes()
    )
    brick = f"{root}/coadd/150/1501p022"
    names = [f"legacysurvey-1501p022-{plane}-{band}.fits.fz" for plane in ("image", "invvar")
             for band in "griz"]  # fmt: skip
    sums = "".join(f"{n:064x} *{name}\n" for n, name in enumerate(names, 1))
    server.files[f"{brick}/legacysurvey-1501p022.sha256sum"] = Served(sums.encode())
    tiles = find_tiles(config, "legacy")
    assert [(tile.band, tile.id) for tile in tiles] == [(band, "1501p022") for band in "griz"]
    assert [int(tile.science.sha256, 16) for tile in tiles] == [1, 2, 3, 4]
    assert [int(tile.noise.sha256, 16) for tile in tiles] == [5, 6, 7, 8]


def test_hst_s_middle_tile(server):
    config = ready("cosmos_hst_legacy.yaml", server)
    (tile,) = find_tiles(config, "hst")
    assert tile.science.path.endswith("/images/acs_2.0/I/acs_I_030mas_065_sci.fits.gz")
    assert tile.noise.path.endswith("/images/acs_2.0/I/acs_I_030mas_065_wht.fits.gz")
    assert np.isclose(tile.zeropoint, 25.94)
