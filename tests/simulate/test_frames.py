import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.config.geometry import Region
from jaisp.config.simulate import SimulateConfig
from jaisp.errors import UserError
from jaisp.simulate.catalogue import from_plane, join
from jaisp.simulate.frames import frames_of, inside, reach_arcsec, region_centre, sources_on
from jaisp.simulate.instruments import EUCLID_Q1, RUBIN
from jaisp.simulate.psf import tile_psf
from jaisp.simulate.resample import KERNEL_HALF_WIDTH, lanczos
from jaisp.simulate.stage import draw_sky

from .fields import moments, source, star, windowed

SMALL = Region(ra=359.999, dec=-28.1, width_arcmin=1.0, height_arcmin=1.0)


def frame(instrument, **simulate):
    config = SimulateConfig(tiles_per_side=1, overlap_arcsec=0.0, **simulate)
    return next(frames_of(config, "rubin", instrument, 0, SMALL))


def served(instrument, band, frame, sky, simulate=None):
    """The noiseless tile of a sky, as the stage makes it, without offset and refraction."""
    seen, pixels, maps = sources_on(frame, sky)
    psf = tile_psf(simulate or SimulateConfig(), "rubin", instrument, band, frame)
    factor = psf.factor
    halo = KERNEL_HALF_WIDTH if factor > 1 else 0
    image = np.zeros([side + 2 * halo for side in psf.shape], np.float32)
    draw_sky(image, psf, seen, 0, (pixels + 0.5) / factor - 0.5, maps / factor, halo)
    return lanczos(image, factor) / factor**2 if factor > 1 else image


@settings(max_examples=25, deadline=None)
@given(
    ra=st.floats(0, 359.99),
    dec=st.floats(-88, 88),
    width=st.floats(0.3, 12),
    height=st.floats(0.3, 12),
    side=st.integers(1, 3),
    overlap=st.floats(0, 60),
    rotation=st.floats(0, 45),
    seed=st.integers(0, 99),
)
def test_the_tiles_cover_their_region_whatever_their_rotation(
    ra, dec, width, height, side, overlap, rotation, seed
):
    region = Region(ra=ra, dec=dec, width_arcmin=width, height_arcmin=height)
    simulate = SimulateConfig(
        seed=seed, tiles_per_side=side, overlap_arcsec=overlap, rotation_deg=rotation
    )
    grid = np.stack(np.meshgrid(np.linspace(-30, 30, 9), np.linspace(-30, 30, 9)), -1)
    grid = grid.reshape(-1, 2) * (width, height)
    place = from_plane(region_centre(region), *grid.T)
    covered = np.zeros(len(grid), bool)
    for tile in frames_of(simulate, "rubin", RUBIN, 0, region):
        x, y = tile.wcs.all_world2pix(place.ra.deg, place.dec.deg, 0, quiet=True)
        height_pixels, width_pixels = tile.shape
        covered |= (x > 4) & (x < width_pixels - 5) & (y > 4) & (y < height_pixels - 5)
    assert covered.all()


def test_tiles_are_rotated_against_one_another_and_between_surveys():
    region = Region(ra=53.0, dec=-28.0, width_arcmin=2.0, height_arcmin=2.0)
    tiles = [
        tile
        for survey, instrument in (("rubin", RUBIN), ("euclid_q1", EUCLID_Q1))
        for tile in frames_of(SimulateConfig(), survey, instrument, 0, region)
    ]
    angles = {round(float(np.arctan2(t.header["CD2_1"], t.header["CD2_2"])), 4) for t in tiles}
    tangents = {(t.header["CRVAL1"], t.header["CRVAL2"]) for t in tiles}
    assert len(angles) == len(tangents) == len(tiles) == 8
    assert tiles[0].wcs.sip is not None
    assert tiles[-1].wcs.sip is None


def test_all_sky_that_a_tile_shows_holds_sources():
    region = Region(ra=10.0, dec=45.0, width_arcmin=3.0, height_arcmin=2.0)
    simulate = SimulateConfig(rotation_deg=20.0)
    for tile in frames_of(simulate, "rubin", RUBIN, 0, region):
        height, width = tile.shape
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
        ra, dec = tile.wcs.all_pix2world(*corners.T, 0)
        sky = join([source(float(a), float(d), 1.0) for a, d in zip(ra, dec, strict=True)])
        assert inside(region, reach_arcsec(simulate, region), sky).all()


def test_too_large_a_tile_is_the_user_s_to_mend():
    region = Region(ra=53.0, dec=-28.0, width_arcmin=120.0, height_arcmin=120.0)
    with pytest.raises(UserError, match=r"simulate.tiles_per_side: .* at least"):
        list(frames_of(SimulateConfig(), "rubin", RUBIN, 0, region))


@pytest.mark.parametrize(
    ("instrument", "band"),
    [(RUBIN, "u"), (RUBIN, "y"), (EUCLID_Q1, "VIS"), (EUCLID_Q1, "Y"), (EUCLID_Q1, "H")],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_star_stands_where_the_tile_s_wcs_says(instrument, band, seed):
    """To 0.2 mas on detector pixels, and to 2 mas where Lanczos sampled an undersampled PSF."""
    tile = frame(instrument, seed=seed)
    x, y = 0.4 * tile.shape[1] + 0.37, 0.55 * tile.shape[0] + 0.81
    image = served(instrument, band, tile, star(tile.wcs, x, y, 1e6))
    width = 1.5 * instrument.bands[band].fwhm_arcsec / instrument.pixel_arcsec
    found_x, found_y = windowed(image, x, y, width)
    ra, dec = tile.wcs.all_pix2world([found_x, x], [found_y, y], 0)
    east = (ra[0] - ra[1]) * np.cos(np.radians(dec[1])) * 3.6e6
    limit = 0.2 if instrument.bands[band].native_pixels == 1 else 2.0
    assert np.hypot(east, (dec[0] - dec[1]) * 3.6e6) < limit


@pytest.mark.parametrize(("instrument", "band"), [(RUBIN, "r"), (EUCLID_Q1, "VIS")])
def test_position_angles_are_east_of_north_on_a_rotated_tile(instrument, band):
    tile = frame(instrument, rotation_deg=45.0)
    angle = np.radians(30.0)
    sky = star(tile.wcs, tile.shape[1] / 2, tile.shape[0] / 2, 1e6)
    e1, e2 = 0.4 * np.cos(2 * angle), 0.4 * np.sin(2 * angle)
    sky = source(float(sky.ra[0]), float(sky.dec[0]), 1e6, 1.5, float(e1), float(e2))
    _, _, seen = moments(served(instrument, band, tile, sky))
    _, _, maps = sources_on(tile, sky)
    arcsec = np.linalg.inv(maps[0])
    values, vectors = np.linalg.eigh(arcsec @ seen @ arcsec.T)
    east, north = vectors[:, np.argmax(values)]
    assert np.degrees(np.arctan2(east, north)) % 180 == pytest.approx(30.0, abs=0.3)


def test_the_local_map_is_the_derivative_of_the_wcs():
    tile = frame(RUBIN)
    sky = star(tile.wcs, 100.3, 220.8, 1.0)
    _, pixels, maps = sources_on(tile, sky)
    np.testing.assert_allclose(pixels, [[100.3, 220.8]], atol=1e-6)
    north = source(float(sky.ra[0]), float(sky.dec[0]) + 1 / 3600, 1.0)
    _, moved, _ = sources_on(tile, north)
    np.testing.assert_allclose(moved - pixels, maps[:, :, 1], atol=1e-3)


@pytest.mark.parametrize("radius", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("snr", [3.0, 30.0])
def test_cutting_faint_wings_costs_little_of_a_source_s_flux(radius, snr):
    band = RUBIN.bands["r"]
    tile = frame(RUBIN)
    place = star(tile.wcs, tile.shape[1] / 2, tile.shape[0] / 2, 1.0)
    flux = snr / 5 * 10 ** (0.4 * (31.4 - band.depth))  # S/N as if it were a star
    sky = source(float(place.ra[0]), float(place.dec[0]), float(flux), radius)
    image = served(RUBIN, "r", tile, sky)
    assert image.sum() == pytest.approx(flux, rel=0.01)
