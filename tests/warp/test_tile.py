from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from jaisp.archives.tile import Plane
from jaisp.errors import TileError
from jaisp.store.layout import Flag
from tests.warp.images import gaussians, open_tile, tan_wcs, tile_of, write_tile

ALL = slice(0, 60), slice(0, 80)


@pytest.fixture
def flux() -> np.ndarray:
    return np.random.default_rng(0).normal(10.0, 2.0, (60, 80)).astype(np.float32)


@pytest.fixture
def noise(flux) -> np.ndarray:
    return np.full(flux.shape, 2.0, np.float32)


def read(tile, rows=ALL[0], columns=ALL[1]):
    return open_tile(tile).section(rows, columns)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "<f8"])
def test_any_float(tmp_path, flux, noise, dtype):
    tile = write_tile(tmp_path / "t.fits", flux.astype(dtype), tan_wcs(), noise.astype(dtype))
    part = read(tile, slice(5, 25), slice(7, 47))
    assert part.flux.dtype == np.float32
    assert part.flux.dtype.isnative
    np.testing.assert_array_equal(part.flux, flux[5:25, 7:47])
    assert not part.flags.any()


def test_scaled_integers_and_blanks(tmp_path, noise):
    values = np.arange(4800, dtype=np.int16).reshape(60, 80)
    tile = write_tile(tmp_path / "t.fits", noise, tan_wcs(), noise)
    hdu = fits.PrimaryHDU(values, tan_wcs().to_header())
    with fits.open(tmp_path / "t.fits") as old:
        fits.HDUList([hdu, old["NOISE"].copy()]).writeto(tmp_path / "i.fits")
    with fits.open(tmp_path / "i.fits", mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BSCALE"], hdus[0].header["BZERO"], hdus[0].header["BLANK"] = 0.5, 100.0, 7
    part = read(replace(tile, science=Plane(tmp_path / "i.fits", 0)))
    expected = values * 0.5 + 100
    assert np.isnan(part.flux[0, 7])
    assert part.flags[0, 7] == Flag.EDGE
    known = np.isfinite(part.flux)
    np.testing.assert_allclose(part.flux[known], expected[known])
    assert known.sum() == values.size - 1


def test_unsigned_integers(tmp_path, noise):
    values = np.full((60, 80), 60000, np.uint16)
    part = read(write_tile(tmp_path / "t.fits", values, tan_wcs(), noise))
    np.testing.assert_array_equal(part.flux, 60000)


@pytest.mark.parametrize("method", ["RICE_1", "HCOMPRESS_1", "GZIP_2"])
def test_compressed_images(tmp_path, flux, method):
    hdu = fits.CompImageHDU(
        flux, tan_wcs().to_header(), compression_type=method, quantize_level=64, tile_shape=(16, 80)
    )
    hdu.writeto(tmp_path / "t.fits.fz")
    tile = tile_of(
        tmp_path / "t.fits.fz", has_noise=False, science=Plane(tmp_path / "t.fits.fz", 1)
    )
    part = read(tile, slice(10, 50), slice(0, 30))
    np.testing.assert_allclose(part.flux, flux[10:50, :30], atol=0.1)


def test_gzipped_file(tmp_path, flux, noise):
    tile = write_tile(tmp_path / "t.fits.gz", flux, tan_wcs(), noise)
    np.testing.assert_array_equal(read(tile).flux, flux)


def test_one_plane_of_a_cube(tmp_path, flux):
    cube = np.stack([flux, flux + 100, flux + 200]).astype(">f8")
    header = tan_wcs().to_header()  # WCSAXES = 2 in an image of three axes, as HSC cutouts have
    fits.PrimaryHDU(cube, header).writeto(tmp_path / "c.fits")
    tile = tile_of(tmp_path / "c.fits", has_noise=False)
    part = read(replace(tile, science=Plane(tmp_path / "c.fits", 0, 2)))
    np.testing.assert_allclose(part.flux, flux + 200, rtol=1e-6)
    with pytest.raises(TileError, match=r"c\.fits\[0\]: is a cube of 3 planes"):
        open_tile(tile)
    with pytest.raises(TileError, match="number 3"):
        open_tile(replace(tile, science=Plane(tmp_path / "c.fits", 0, 3)))


def test_axes_of_length_one_and_a_spectral_wcs(tmp_path, flux):
    header = tan_wcs().to_header()
    header.update({"WCSAXES": 4, "CTYPE3": "FREQ", "CRVAL3": 1e9, "CDELT3": 1e6, "CRPIX3": 1.0})
    header.update({"CTYPE4": "STOKES", "CRVAL4": 1.0, "CDELT4": 1.0, "CRPIX4": 1.0})
    fits.PrimaryHDU(flux[None, None], header).writeto(tmp_path / "r.fits")
    reader = open_tile(tile_of(tmp_path / "r.fits", has_noise=False))
    assert reader.shape == (60, 80)
    assert reader.wcs.naxis == 2
    np.testing.assert_array_equal(reader.section(*ALL).flux, flux)


def test_planes_in_other_files(tmp_path, flux, noise):
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs())
    fits.writeto(tmp_path / "n.fits", noise)
    fits.writeto(tmp_path / "m.fits", (flux > 12).astype(np.uint8))
    tile = replace(
        tile,
        noise=Plane(tmp_path / "n.fits", 0),
        noise_kind="rms",
        mask=Plane(tmp_path / "m.fits", 0),
    )
    part = read(tile)
    np.testing.assert_array_equal(part.flags == Flag.BAD, flux > 12)


def test_noise_kinds_say_the_same(tmp_path, flux):
    sigma = np.random.default_rng(1).uniform(1, 3, flux.shape)
    parts = [
        read(write_tile(tmp_path / f"{kind}.fits", flux, tan_wcs(), plane, noise_kind=kind))
        for kind, plane in {
            "rms": sigma,
            "variance": sigma**2,
            "inverse_variance": sigma**-2,
        }.items()
    ]
    for part in parts:
        np.testing.assert_allclose(part.noise, sigma, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("rms", [np.nan, np.inf, 0.0, -1.0, 1e16]),
        ("variance", [np.nan, np.inf, 0.0, -1.0, 1e32]),
        ("inverse_variance", [np.nan, np.inf, 0.0, -1.0, 1e-32]),
    ],
)
def test_noise_that_is_none_makes_the_pixel_bad(tmp_path, flux, noise, kind, values):
    noise[0, : len(values)] = values
    part = read(write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise, noise_kind=kind))
    assert (part.flags[0, : len(values)] == Flag.BAD).all()
    assert np.isnan(part.flux[0, : len(values)]).all()
    assert np.isnan(part.noise[0, : len(values)]).all()
    assert not part.flags[1:].any()


def test_noise_of_tiny_units_is_no_sentinel(tmp_path, flux):
    part = read(
        write_tile(
            tmp_path / "t.fits",
            flux * 1e-12,
            tan_wcs(),
            np.full(flux.shape, 1e24, np.float32),
            noise_kind="inverse_variance",
        )
    )
    np.testing.assert_allclose(part.noise, 1e-12, rtol=1e-6)


def test_estimated_noise_and_subtracted_sky(tmp_path):
    rng = np.random.default_rng(3)
    slope = 100 + 0.02 * np.arange(500)[None, :]
    star_x, star_y = rng.uniform(20, 480, (2, 60))
    stars = gaussians((500, 500), star_x, star_y, 3.5, 3000.0)
    image = (rng.normal(0, 4.0, (500, 500)) + slope + stars).astype(np.float32)
    image[:10] = np.nan
    for unit in (1.0, 1e-13):  # counts, maggies
        tile = write_tile(
            tmp_path / f"{unit}.fits",
            image * np.float32(unit),
            tan_wcs(size=500),
            subtract_sky=True,
        )
        part = read(tile, slice(0, 500), slice(0, 500))
        good = np.isfinite(part.noise)
        assert (~good[:10]).all()
        assert good[10:].all()
        np.testing.assert_allclose(part.noise[good] / unit, 4.0, rtol=0.05)
        sky = stars < 0.1
        left = (part.flux / unit)[sky & good]
        assert abs(np.median(left)) < 0.2
        corner = (part.flux / unit)[20:150, :100][sky[20:150, :100]]
        assert abs(np.median(corner)) < 0.5


def test_mask_bits(tmp_path, flux, noise):
    mask = np.zeros(flux.shape, np.int32)
    mask[0, 0], mask[0, 1], mask[0, 2] = 1, 2, 3
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise, mask)
    assert np.flatnonzero(read(tile).flags).tolist() == [0, 1, 2]
    assert np.flatnonzero(read(replace(tile, bad_bits=2)).flags).tolist() == [1, 2]


def test_nan_border_is_edge_and_beyond_the_tile_too(tmp_path, flux, noise):
    flux[:, :5] = np.nan
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise)
    part = read(tile, slice(-3, 10), slice(-4, 90))
    assert part.flux.shape == (13, 94)
    expected = np.full((13, 94), int(Flag.EDGE))
    expected[3:, 9:84] = 0
    np.testing.assert_array_equal(part.flags, expected)
    assert np.isnan(part.flux[expected > 0]).all()
    nowhere = read(tile, slice(100, 110), slice(0, 5))
    assert (nowhere.flags == Flag.EDGE).all()


@pytest.mark.parametrize(("level", "flagged"), [(14.0, True), (np.nan, False), (0.0, False)])
def test_saturation_by_the_header(tmp_path, flux, noise, level, flagged):
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise)
    if np.isfinite(level):
        fits.setval(tmp_path / "t.fits", "SATURATE", value=level)
    part = read(tile)
    np.testing.assert_array_equal(part.flags == Flag.SATURATED, flagged & (flux >= 14))
    assert np.isfinite(part.flux).all()


def test_zero_point_from_header_or_number_or_none(tmp_path, flux, noise):
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise, header={"MAGZERO": 24.6})
    assert open_tile(replace(tile, zeropoint="MAGZERO")).zeropoint == 24.6
    assert open_tile(replace(tile, zeropoint=27.0)).zeropoint == 27.0
    assert open_tile(replace(tile, zeropoint=None)).zeropoint is None
    with pytest.raises(TileError, match=r"t\.fits\[0\]: its header has no key PHOTZP"):
        open_tile(replace(tile, zeropoint="PHOTZP"))
    fits.setval(tmp_path / "t.fits", "MAGZERO", value="unknown")
    with pytest.raises(TileError, match=r"MAGZERO: no zero point \(MAGZERO is 'unknown'\)"):
        open_tile(replace(tile, zeropoint="MAGZERO"))


def test_zero_point_of_a_formula(tmp_path, flux, noise):
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise, header={"EXPTIME": 731.0})
    of_time = replace(tile, zeropoint="25 + 2.5 log10(EXPTIME)")
    assert open_tile(of_time).zeropoint == pytest.approx(25 + 2.5 * np.log10(731))
    for value in (0.0, -1.0, "long"):
        fits.setval(tmp_path / "t.fits", "EXPTIME", value=value)
        with pytest.raises(TileError, match=r"\[0\]: 25 .*: no zero point \(EXPTIME is"):
            open_tile(of_time)
    with pytest.raises(TileError, match=r"t\.fits\[0\]: its header has no key PHOTFLAM"):
        open_tile(replace(tile, zeropoint="-2.408 - 2.5 log10(PHOTFLAM) - 5 log10(PHOTPLAM)"))


def test_wcs_given_for_an_image_without_one(tmp_path, flux, noise):
    tile = write_tile(tmp_path / "t.fits", flux, None, noise)
    with pytest.raises(TileError, match="no celestial WCS"):
        open_tile(tile)
    given = {"ra": 10.0, "dec": -30.0, "pixel_arcsec": 0.3, "rotation_deg": 30.0}
    reader = open_tile(replace(tile, wcs=given))
    assert reader.pixel_arcsec == pytest.approx(0.3)
    centre = reader.wcs.pixel_to_world(39.5, 29.5)
    assert (centre.ra.deg, centre.dec.deg) == pytest.approx((10.0, -30.0))
    up = reader.wcs.pixel_to_world(39.5, 39.5)
    assert centre.position_angle(up).deg == pytest.approx(30.0, abs=1e-3)
    right = reader.wcs.pixel_to_world(49.5, 29.5)
    assert centre.position_angle(right).deg == pytest.approx(300.0, abs=1e-3)


def test_old_headers_pass_silently(tmp_path, flux, noise):
    header = {"RADECSYS": "ICRS", "EPOCH": 2000.0, "DATE-OBS": "01/02/99", "MJD-OBS": 51210.5}
    tile = write_tile(tmp_path / "t.fits", flux, None, noise, header=header)
    with fits.open(tmp_path / "t.fits", mode="update") as hdus:
        for key, value in tan_wcs().to_header().items():
            if key != "RADESYS":
                hdus[0].header[key] = value
    assert open_tile(tile).wcs.wcs.radesys == "ICRS"


def test_bad_files_are_tile_errors(tmp_path, flux, noise):
    tile = write_tile(tmp_path / "t.fits", flux, tan_wcs(), noise)
    with pytest.raises(TileError, match=r"none\.fits: can't be read"):
        open_tile(replace(tile, science=Plane(tmp_path / "none.fits", 0)))
    (tmp_path / "text.fits").write_text("<html>404</html>")
    with pytest.raises(TileError, match=r"text\.fits: can't be read"):
        open_tile(replace(tile, science=Plane(tmp_path / "text.fits", 0)))
    with pytest.raises(TileError, match=r"t\.fits: has no HDU 'SCI'; images are in 0 PRIMARY, 1"):
        open_tile(replace(tile, science=Plane(tmp_path / "t.fits", "SCI")))
    with pytest.raises(TileError, match="has no HDU 9"):
        open_tile(replace(tile, noise=Plane(tmp_path / "t.fits", 9)))
    data = (tmp_path / "t.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(data[: len(data) // 3])
    with pytest.raises(TileError, match=r"cut\.fits.*truncated"):
        read(replace(tile, science=Plane(tmp_path / "cut.fits", 0), noise=None,
                     noise_kind="estimate"))  # fmt: skip
    fits.writeto(tmp_path / "small.fits", noise[:10])
    with pytest.raises(TileError, match=r"small\.fits\[0\]: is \(10, 80\)"):
        open_tile(replace(tile, noise=Plane(tmp_path / "small.fits", 0)))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(flux)]).writeto(tmp_path / "empty.fits")
    with pytest.raises(TileError, match="holds no image; images are in 1"):
        open_tile(replace(tile, science=Plane(tmp_path / "empty.fits", 0)))


def test_psf_of_a_stamp_given_or_from_stars(tmp_path):
    rng = np.random.default_rng(4)
    size, pixel, fwhm = 600, 0.2, 0.8
    star_x, star_y = rng.uniform(30, size - 30, (2, 40))
    image = gaussians((size, size), star_x, star_y, fwhm / pixel, 1.0)
    image *= 20000.0
    galaxies = gaussians((size, size), *rng.uniform(30, size - 30, (2, 60)), 2 * fwhm / pixel, 4e3)
    image = (image + galaxies + rng.normal(0, 5.0, image.shape)).astype(np.float32)
    tile = write_tile(
        tmp_path / "t.fits",
        image,
        tan_wcs(size=size),
        np.full(image.shape, 5.0, np.float32),
        psf_fwhm_arcsec=None,
    )
    stars = open_tile(tile)
    assert stars.psf_fwhm_arcsec(300.0, 300.0) == pytest.approx(fwhm, rel=0.02)
    assert stars.psf_source == "stars"
    assert not stars.noise_includes_sources

    stamp = gaussians((25, 25), [12.0], [12.0], 3.0, 7.0).astype(">f4")
    fits.writeto(tmp_path / "psf.fits", np.stack([stamp * 0, stamp]))
    stamped = open_tile(replace(tile, psf=Plane(tmp_path / "psf.fits", 0, 1)))
    assert stamped.psf_fwhm_arcsec(0.0, 0.0) == pytest.approx(3.0 * pixel, rel=0.01)
    assert stamped.psf_stamp.sum() == pytest.approx(1.0)
    assert stamped.psf_source == "stamp"
    with pytest.raises(TileError, match="is no PSF stamp"):
        open_tile(replace(tile, psf=Plane(tmp_path / "psf.fits", 0, 0)))

    assert open_tile(replace(tile, psf_fwhm_arcsec=1.1)).psf_fwhm_arcsec(0.0, 0.0) == 1.1


def test_psf_of_empty_sky_is_unknown(tmp_path):
    image = np.random.default_rng(5).normal(size=(100, 100)).astype(np.float32)
    reader = open_tile(
        write_tile(tmp_path / "t.fits", image, tan_wcs(size=100), psf_fwhm_arcsec=None)
    )
    assert np.isnan(reader.psf_fwhm_arcsec(50.0, 50.0))
    assert reader.psf_source == "none"


def test_noise_with_source_noise_is_recognised(tmp_path):
    rng = np.random.default_rng(6)
    stars = gaussians((400, 400), *rng.uniform(20, 380, (2, 40)), 4.0, 20000.0)
    flux = (stars + rng.normal(0, 5.0, stars.shape)).astype(np.float32)
    poisson = np.sqrt(25 + stars).astype(np.float32)
    for name, noise, expected in (
        ("with", poisson, True),
        ("without", np.full_like(poisson, 5.0), False),
    ):
        tile = write_tile(tmp_path / f"{name}.fits", flux, tan_wcs(size=400), noise)
        assert open_tile(tile).noise_includes_sources is expected
