"""What docs/archives.md has for public buckets, against made-up images of such archives' kinds."""

import io
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table

from jaisp.archives.table import read_tiles
from jaisp.config import load_config
from jaisp.fetch import BATCHES, fetch, gather_fetched
from jaisp.files import write_receipt
from jaisp.plan import plan
from jaisp.warp.tile import TileReader
from tests.configs import CENTRE, small_config, write_config, write_tile
from tests.warp.images import tan_wcs

DOCS = Path(__file__).resolve().parents[2] / "docs" / "archives.md"
# By the root of their names in the bucket: what a header of such an archive tells, and the unit of
# its pixels, nJy.
CALIBRATED = {
    "panstarrs": ({"EXPTIME": 731.0}, 10 ** (0.4 * (31.4 - 25)) / 731),
    "hst": (
        {"PHOTFLAM": 7.07e-20, "PHOTPLAM": 8044.99},
        # erg/s/cm²/Å to erg/s/cm²/Hz at the pivot, Å²/s of light, and to nJy.
        7.07e-20 * 8044.99**2 / 2.99792458e18 * 1e32,
    ),
    "jwst": ({"PIXAR_SR": 2.29e-14}, 2.29e-14 * 1e6 * 1e9),
}


def documented(name):
    """The archive that the documentation has for these images."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if f"s3://stpubdata/{name}/" in block)
    return yaml.safe_load(block)["archive"]


def put_documented(store, name, unit, header):
    """Put made-up images where the archive has its own; returns their fluxes, nJy."""
    pixels = np.random.default_rng(3).normal(2.0, 5.0, (300, 300)).astype(np.float32)
    header = {**tan_wcs(size=300, pixel=0.1, ra=CENTRE[0], dec=CENTRE[1]).to_header(), **header}
    science, sigma = fits.Header(header), fits.ImageHDU(np.full_like(pixels, 5.0), name="ERR")
    files = {}
    if name == "panstarrs":
        science.update({"BOFFSET": 1.5, "BSOFTEN": 4.0})
        kept = 2.5 / np.log(10) * np.arcsinh((pixels - 1.5) / 8.0)
        packed = {"compression_type": "GZIP_1", "quantize_level": 0}
        folder = "panstarrs/ps1/public/rings.v3.skycell/1405/053"
        stem = f"{folder}/rings.v3.skycell.1405.053.stk.r.unconv"
        files[f"{stem}.fits"] = fits.CompImageHDU(kept.astype(np.float32), science, **packed)
        files[f"{stem}.wt.fits"] = fits.ImageHDU(np.full_like(pixels, 25.0))
    else:
        (image,) = documented(name)["images"]
        key = f"{name}/public/{image['science']['path']}"
        files[key] = fits.ImageHDU(pixels, science, name="SCI")
    for key, hdu in files.items():
        handle = io.BytesIO()
        more = [] if name == "panstarrs" else [sigma]
        fits.HDUList([fits.PrimaryHDU(), hdu, *more]).writeto(handle)
        store.put(key, handle.getvalue(), bucket="stpubdata")
    return pixels * unit


@pytest.mark.parametrize("name", CALIBRATED)
def test_what_is_documented_of_public_buckets_is_read_and_calibrated(
    store, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    header, unit = CALIBRATED[name]
    store.make_bucket("stpubdata")
    flux = put_documented(store, name, unit, header)
    Table({"projection": [1405], "skycell": [53], "ra": [CENTRE[0]], "dec": [CENTRE[1]]}).write(
        tmp_path / "skycells.csv"
    )
    write_tile(tmp_path / "wide.fits", 0.2)
    content = small_config(fetch={"s3_endpoint": store.address, "attempts": 1})
    archive = documented(name)
    band = "r" if name == "panstarrs" else archive["images"][0]["band"]
    content["surveys"]["sharp"] |= {"bands": [band], "archive": archive}
    config = load_config(write_config(tmp_path, content))
    plan(config)
    for batch in range(BATCHES):
        write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
    assert gather_fetched(config)["problems"] == 0
    (sharp,) = (tile for tile in read_tiles(config, fetched=True) if tile.survey == "sharp")
    with closing(TileReader(sharp)) as reader:
        part = reader.section(slice(0, reader.shape[0]), slice(0, reader.shape[1]))
        found = part.flux * 10 ** (0.4 * (31.4 - reader.zeropoint))
    rows = found.shape[0]
    first = (flux.shape[0] - rows) // 2
    np.testing.assert_allclose(found, flux[first : first + rows], rtol=2e-3, atol=1e-3 * unit)
