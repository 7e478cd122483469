"""Injection into images already at hand: given and stored PSFs, noise planes and estimates."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import jaisp
from jaisp.config import parse_config
from jaisp.fetch import BATCHES, fetch
from jaisp.files import write_receipt
from jaisp.inject.stage import inject
from jaisp.plan import plan
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.warp import warp

CENTRE = (150.0, 2.0)
SIDE_ARCSEC = 64.0
FWHM = {"sharp": 0.5, "wide": 0.9}
PIXEL = {"sharp": 0.1, "wide": 0.2}


def write_image(folder: Path, name: str, rng: np.random.Generator) -> None:
    """Noise of slowly changing depth, a few stars, a bad corner; the PSF as a stamp beside."""
    pixel = PIXEL[name]
    side = round(SIDE_ARCSEC / pixel)
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval = CENTRE
    plane.wcs.cdelt = [-pixel / 3600, pixel / 3600]
    plane.wcs.pc = [[np.cos(0.03), -np.sin(0.03)], [np.sin(0.03), np.cos(0.03)]]
    plane.wcs.crpix = [side / 2 + 0.3, side / 2 - 0.2]
    header = plane.to_header()
    header["MAGZERO"] = 29.0
    rms = np.linspace(1.0, 1.3, side, dtype=np.float32)[:, None] * np.ones(side, np.float32)
    image = rms * rng.standard_normal((side, side), dtype=np.float32) + np.float32(3.0)
    y, x = np.indices(image.shape)
    sigma = FWHM[name] / 2.3548 / pixel
    for at in rng.uniform(20, side - 20, (12, 2)):
        image += 60.0 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 2 / sigma**2)
    rms[:200, :200] = 0.0
    half = int(4 * sigma)
    y, x = np.indices((2 * half + 1,) * 2) - half
    stamp = np.exp(-(x**2 + y**2) / 2 / sigma**2)
    planes = {"RMS": rms, "PSF": stamp}
    hdus = [fits.PrimaryHDU(image.astype(np.float32), header)]
    hdus += [fits.ImageHDU(v.astype(np.float32), name=n) for n, v in planes.items()]
    fits.HDUList(hdus).writeto(folder / f"{name}.fits")


def image_of(name: str) -> dict:
    given = {
        "sharp": {"noise": {"kind": "rms", "hdu": "RMS"}, "psf": {"hdu": "PSF"}},
        "wide": {"noise": {"kind": "estimate"}, "psf": {"fwhm_arcsec": FWHM["wide"]}},
    }
    return {
        "band": "r",
        "science": {"path": f"{name}.fits"},
        "zeropoint": "MAGZERO",
        "subtract_sky": True,
        **given[name],
    }


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A published field of four patches in two surveys, and its injected skies."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(6)
    for name in PIXEL:
        write_image(folder, name, rng)
    side = 51.2 / 60
    content = {
        "run": "real",
        "sky": {"ra": CENTRE[0], "dec": CENTRE[1], "width_arcmin": side, "height_arcmin": side},
        "patch": {"arcsec": 25.6},
        "split": {"test": 0.0, "validation": 0.0},
        "surveys": {
            name: {
                "bands": ["r"],
                "pixel_arcsec": PIXEL[name],
                "archive": {"kind": "files", "images": [image_of(name)]},
            }
            for name in PIXEL
        },
    }
    config = parse_config(content, folder / "real.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JAISP_CACHE", str(folder / "cache"))
        plan(config)
        for batch in range(BATCHES):
            write_receipt(config, "fetch", f"batch{batch}", fetch(config, batch))
        for cell in cells(config):
            for survey in config.surveys:
                warp(config, cell, survey)
        publish(config)
        for name in ("empty", "crowded"):
            inject(config, name)
    return folder / "results" / "real"


def table_of(field, name):
    from astropy.table import Table

    return Table.read(field / "injected" / name / "sources.ecsv", format="ascii.ecsv")


@pytest.mark.parametrize("survey", list(PIXEL))
def test_the_fit_reaches_the_bound_with_a_stored_and_a_given_psf(field, survey):
    table = table_of(field, "empty")
    own = table[(table["snr"] >= 30) & (table["kind"] == "each")]
    own = own[np.isfinite(own[f"bound_mas_{survey}"])]
    assert len(own) > 10
    pull = [own[f"psf_fit_d{axis}_mas_{survey}"] / own[f"bound_mas_{survey}"] for axis in "xy"]
    assert np.sqrt(np.mean(np.square(pull))) == pytest.approx(1.0, abs=0.35)
    # A Gaussian's bound: √2 σ / (S/N).
    expected = np.sqrt(2) * 1000 * FWHM[survey] / 2.3548 / own["snr"]
    assert np.median(own[f"bound_mas_{survey}"] / expected) == pytest.approx(1.0, abs=0.03)


def test_the_survey_s_frame_is_the_sky_s_and_bad_corners_hold_no_source(field):
    table = table_of(field, "empty")
    known = np.isfinite(table["bound_mas_sharp"])
    assert np.array_equal(table["x_sharp"][known], table["x"][known])
    seen = np.isfinite(table["bound_mas_wide"])
    assert known.sum() < seen.sum() == len(table)


def test_the_empty_field_has_the_home_s_noise_and_none_of_its_stars(field):
    home, empty = (
        jaisp.open(field / name) for name in ("patches.zarr", "injected/empty/patches.zarr")
    )
    for survey in PIXEL:
        noise = [np.nanmedian([s[n][survey].noise for n in range(4)]) for s in (home, empty)]
        assert noise[1] == pytest.approx(noise[0], rel=0.05)
        scatter = [
            1.4826 * np.nanmedian(np.abs([s[n][survey].flux for n in range(4)]))
            for s in (home, empty)
        ]
        assert scatter[1] == pytest.approx(scatter[0], rel=0.06)
