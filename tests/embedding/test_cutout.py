"""`jaisp.embed`: any FITS image onto the survey's grid, and plain words for what it can't do."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import jaisp
from jaisp.errors import UserError
from jaisp.model import save_model

CENTRE = (150.0, 2.2)
TOKENS = 20


def image_header(pixels, pixel_arcsec, rotation_deg=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = CENTRE
    wcs.wcs.crpix = [(pixels + 1) / 2] * 2
    angle = np.radians(rotation_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = pixel_arcsec / 3600 * np.array([[-cos, sin], [sin, cos]])
    header = wcs.to_header()
    header["MAGZERO"] = 31.4
    return header


def blobs(wcs, pixels, seed=4):
    """The same few sources on any pixels."""
    generator = np.random.default_rng(seed)
    sky_x, sky_y = generator.uniform(-14, 14, (2, 8)) / 3600
    x, y = wcs.world_to_pixel_values(CENTRE[0] + sky_x / np.cos(np.radians(CENTRE[1])),
                                     CENTRE[1] + sky_y)  # fmt: skip
    scale = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600
    column, row = np.meshgrid(np.arange(pixels), np.arange(pixels))
    square = (column - x[:, None, None]) ** 2 + (row - y[:, None, None]) ** 2
    return (300 * np.exp(-square * scale**2 / 0.5)).sum(axis=0) * scale**2 / 0.16


@pytest.fixture
def cutout(tmp_path):
    """Rubin's g on the survey's own pixels, and a file of its noise."""
    pixels = TOKENS * 4
    header = image_header(pixels, 0.4)
    generator = np.random.default_rng(5)
    flux = generator.normal(0, 1, (pixels, pixels)) + blobs(WCS(header), pixels)
    flux = flux.astype(np.float32)
    fits.PrimaryHDU(flux, header).writeto(tmp_path / "g.fits")
    fits.PrimaryHDU(np.ones_like(flux), header).writeto(tmp_path / "g.rms.fits")
    return tmp_path / "g.fits", tmp_path / "g.rms.fits", flux


def test_an_image_on_the_grid_is_taken_as_it_is(cutout, model):
    path, noise, flux = cutout
    tokens, wcs = jaisp.embed(path, model, survey="rubin", band="g", noise=noise)
    assert tokens.shape == (6, TOKENS, TOKENS)
    np.testing.assert_allclose(
        wcs.pixel_to_world_values(TOKENS / 2 - 0.5, TOKENS / 2 - 0.5), CENTRE, atol=1e-9
    )
    direct = model.encode(
        flux[None, None], np.ones_like(flux)[None, None], survey="rubin", bands=["g"]
    )
    # The kernel leaves a frame without data; inside, pixels at whole positions are untouched.
    inner = (slice(None), slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(tokens[inner], direct[0].detach().numpy()[inner], atol=1e-3)


def test_a_turned_image_gives_the_tokens_of_its_sky(model, tmp_path):
    tokens, grids = [], []
    for name, pixels, pixel_arcsec, rotation in (("a", 80, 0.4, 0), ("b", 200, 0.2, 30)):
        header = image_header(pixels, pixel_arcsec, rotation)
        flux = blobs(WCS(header), pixels).astype(np.float32)
        # The same noise per area of sky once it is on the survey's pixels of 0.4″.
        noise = np.full_like(flux, (pixel_arcsec / 0.4) ** 2)
        fits.PrimaryHDU(flux, header).writeto(tmp_path / f"{name}.fits")
        fits.PrimaryHDU(noise, header).writeto(tmp_path / f"{name}.rms.fits")
        found, wcs = jaisp.embed(
            tmp_path / f"{name}.fits", model, survey="rubin", band="g",
            noise=tmp_path / f"{name}.rms.fits",
        )  # fmt: skip
        tokens.append(found)
        grids.append(wcs)
    # Tokens of both images whose centres are the same sky.
    rows, columns = np.mgrid[8:12, 8:12]
    x, y = grids[1].world_to_pixel_values(*grids[0].pixel_to_world_values(columns, rows))
    np.testing.assert_allclose(x, np.rint(x), atol=1e-3)
    straight = tokens[0][:, rows, columns]
    turned = tokens[1][:, np.rint(y).astype(int), np.rint(x).astype(int)]
    assert np.corrcoef(straight.ravel(), turned.ravel())[0, 1] > 0.98


def test_noise_is_measured_when_not_given(cutout, model):
    path, noise, _ = cutout
    given, _ = jaisp.embed(path, model, survey="rubin", band="g", noise=noise)
    measured, _ = jaisp.embed(path, model, survey="rubin", band="g")
    both = np.isfinite(given) & np.isfinite(measured)
    assert both.mean() > 0.6
    assert np.corrcoef(given[both], measured[both])[0, 1] > 0.95


def test_several_bands_stand_in_a_cube_or_in_hdus(cutout, model, tmp_path):
    path, _, flux = cutout
    header = fits.getheader(path)
    bands = ["g", "i"]
    fits.PrimaryHDU(np.stack([flux, 2 * flux]), header).writeto(tmp_path / "cube.fits")
    hdus = [fits.PrimaryHDU()]
    hdus += [fits.ImageHDU(k * flux, header, name=band) for k, band in ((2, "i"), (1, "g"))]
    fits.HDUList(hdus).writeto(tmp_path / "hdus.fits")
    cube, _ = jaisp.embed(tmp_path / "cube.fits", model, survey="rubin", bands=bands)
    named, _ = jaisp.embed(tmp_path / "hdus.fits", model, survey="rubin", bands=bands)
    numbered, _ = jaisp.embed(
        tmp_path / "hdus.fits", model, survey="rubin", bands=bands, hdu=[2, 1]
    )
    np.testing.assert_array_equal(cube, named)
    np.testing.assert_array_equal(cube, numbered)
    with pytest.raises(UserError, match="holds 2 planes for bands g, r, i"):
        jaisp.embed(tmp_path / "cube.fits", model, survey="rubin", bands=["g", "r", "i"])


def test_a_model_folder_will_do(cutout, model, tmp_path):
    path, noise, _ = cutout
    save_model(model, tmp_path / "model", "# A model")
    here, _ = jaisp.embed(path, model, survey="rubin", band="g", noise=noise)
    there, _ = jaisp.embed(path, tmp_path / "model", survey="rubin", band="g", noise=noise)
    np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"survey": "hst"}, "it knows rubin, euclid"),
        ({"band": "z"}, "the model knows g, r, i"),
        ({"band": None}, "several bands; give `band` or `bands` of g, r, i"),
        ({"bands": ["g"]}, "either `band` or `bands`"),
        ({"noise": "nowhere.fits"}, "nowhere.fits: no such file"),
        ({"hdu": 3}, "has no HDU 3"),
        ({"zeropoint": "ZP"}, "no key ZP"),
    ],
)
def test_mistakes_are_told_in_one_line(cutout, model, options, said):
    path, _, _ = cutout
    with pytest.raises(UserError, match=said) as told:
        jaisp.embed(path, model, **({"survey": "rubin", "band": "g"} | options))
    assert "\n" not in str(told.value)


def test_a_file_without_sky_is_told(model, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        jaisp.embed(tmp_path / "a.fits", model, survey="rubin", band="g")
    header = fits.Header({"MAGZERO": 25.0})
    fits.PrimaryHDU(np.ones((40, 40), np.float32), header).writeto(tmp_path / "b.fits")
    with pytest.raises(UserError, match="no celestial WCS"):
        jaisp.embed(tmp_path / "b.fits", model, survey="rubin", band="g")
    fits.PrimaryHDU().writeto(tmp_path / "c.fits")
    with pytest.raises(UserError, match="holds no image"):
        jaisp.embed(tmp_path / "c.fits", model, survey="rubin", band="g")
    (tmp_path / "d.fits").write_text("not FITS")
    with pytest.raises(UserError, match=r"d\.fits"):
        jaisp.embed(tmp_path / "d.fits", model, survey="rubin", band="g")
