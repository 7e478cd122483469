"""Injected skies, warped and published: what was put in is what the patches show."""

import numpy as np
import pytest
import sep

import jaisp
from jaisp.sky import patch_wcs
from jaisp.store.layout import UNUSABLE

BANDS = {"rubin": ["g", "r"], "euclid_q1": ["VIS", "H"]}


def stamp_of(store, row, survey, band, x, y, half_arcsec=2.0):
    """Pixels of a patch around a place on the cell's plane, and that place in them; None at an
    edge or where a pixel is unusable."""
    patch = store[f"field/{row}"]
    view = patch[survey]
    grid = view.grid_arcsec
    number = view.bands.index(band)
    middle = (view.flux.shape[-1] - 1) / 2
    column, line = (x - patch.x) / grid + middle, (y - patch.y) / grid + middle
    half = round(half_arcsec / grid)
    left, low = round(column) - half, round(line) - half
    cut = (slice(low, low + 2 * half + 1), slice(left, left + 2 * half + 1))
    flux, mask = view.flux[number][cut], view.mask[number][cut]
    whole = left >= 0 and low >= 0 and flux.shape == (2 * half + 1,) * 2
    if not whole or not np.isfinite(flux).all() or (mask & np.uint8(UNUSABLE)).any():
        return None
    return flux.copy(), column - left, line - low, grid, float(view.psf_fwhm_arcsec[number])


def bright(sky, survey, snr=100.0, kind="each"):
    """Rows of the sources of a S/N that a survey sees."""
    table = sky.sources
    own = (np.asarray(table["snr"]) == snr) & (np.asarray(table["kind"]) == kind)
    return table[own & np.isfinite(sky.column(f"bound_mas_{survey}"))]


def test_a_sky_has_the_cells_rows_and_split_of_its_home(skies, home):
    folder, _ = home
    store = jaisp.open(folder / "results" / "home" / "patches.zarr")
    for name in ("empty", "crowded", "displaced"):
        other = skies(name).store.index
        for column in ("cell", "row", "x", "y", "split"):
            assert np.array_equal(getattr(other, column), getattr(store.index, column))
    sources = skies("empty").sources
    names = np.array(["none", "train", "validation", "test"])
    assert list(sources["split"]) == list(names[store.index.split[sources["row"]]])
    assert {"train", "test"} == set(sources["split"])


@pytest.mark.parametrize("survey", list(BANDS))
@pytest.mark.parametrize("name", ["empty", "crowded"])
def test_flux_comes_back_in_apertures(skies, home, survey, name):
    folder, _ = home
    sky = skies(name)
    store = jaisp.open(folder / "results" / "home" / "patches.zarr")
    for band in BANDS[survey]:
        ratios = []
        for row in bright(sky, survey):
            place = row["row"], survey, band, row[f"x_{survey}"], row[f"y_{survey}"]
            found = stamp_of(sky.store, *place, 1.5)
            before = stamp_of(store, *place, 1.5)
            if found is None or before is None:
                continue
            image = found[0] - (before[0] if name == "crowded" else 0)
            y, x = np.indices(image.shape)
            inside = np.hypot(x - found[1], y - found[2]) * found[3] < 1.5
            ratios.append(image[inside].sum() / row[f"flux_{survey}_{band}"])
        assert len(ratios) >= 3
        # An aperture of 1.5″ leaves out wings, and a single star's noise is a few per cent.
        error = 0.02 if name == "crowded" else 0.08
        assert np.median(ratios) == pytest.approx(0.95, abs=0.05 + error), (band, ratios)


@pytest.mark.parametrize(
    ("survey", "band", "accuracy_mas"),
    [("rubin", "r", 4.0), ("euclid_q1", "VIS", 3.0), ("euclid_q1", "H", 25.0)],
)
def test_a_source_lies_where_the_survey_s_frame_has_it(skies, survey, band, accuracy_mas):
    """To a fraction of a native pixel (200, 100, 300 mas), as the mean of the brightest tells."""
    sky = skies("empty")
    misses, weights = [], []
    for kind in ("each", "both"):
        for row in bright(sky, survey, kind=kind):
            place = row[f"x_{survey}"], row[f"y_{survey}"]
            found = stamp_of(sky.store, row["row"], survey, band, *place)
            if found is None:
                continue
            image, x, y, grid, fwhm = found
            at = sep.winpos(image, [x], [y], fwhm / grid / 2.3548)
            misses.append(1000 * grid * np.array([at[0][0] - x, at[1][0] - y]))
            weights.append(row[f"flux_{survey}_{band}"] ** 2)
    mean = np.average(misses, axis=0, weights=weights)
    scatter = np.average((misses - mean) ** 2, axis=0, weights=weights)
    error = np.sqrt(scatter * np.sum(np.square(weights))) / np.sum(weights)
    assert (error < accuracy_mas).all()
    # r is refracted otherwise than the mean of g and r, by a few mas.
    assert (np.abs(mean) < 3 * error + (5.0 if survey == "rubin" else 0.5)).all()


def test_the_survey_s_frame_is_the_sky_s_with_offset_and_refraction(skies, home):
    from astropy.table import Table

    folder, _ = home
    table = skies("empty").sources
    offsets = Table.read(folder / "results/home/simulated/offsets.ecsv", format="ascii.ecsv")
    for row in offsets:
        shift = np.array([table[f"{axis}_{row['survey']}"] - table[axis] for axis in "xy"], float)
        shift = 1000 * shift[:, np.isfinite(shift).all(axis=0)]
        expected = np.array([row["west_mas"], row["north_mas"]])[:, None]
        away = np.hypot(*(shift - expected))
        if row["survey"] == "euclid_q1":
            assert away.max() < 1e-6
        else:
            # g is refracted, by the colour: never by more than 100 mas, of some by more than 1.
            assert 1.0 < away.max() < 100.0


def test_signal_to_noise_is_as_nominal(skies, home):
    """By the tile's own noise plane and the simulator's own stamps."""
    from jaisp.archives.table import read_tiles
    from jaisp.simulate.frames import frames_of
    from jaisp.simulate.instruments import instrument_of
    from jaisp.simulate.psf import tile_psf
    from jaisp.sky import cells, plane_radec
    from jaisp.warp.tile import TileReader

    folder, config = home
    sky = skies("empty")
    (cell,) = cells(config)
    rows = bright(sky, "euclid_q1", 30.0)[:6]
    total = np.zeros(len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("JAISP_CACHE", str(folder / "cache"))
        for tile in read_tiles(config, fetched=True):
            if tile.survey != "euclid_q1":
                continue
            instrument = instrument_of("euclid_q1", config.surveys["euclid_q1"])
            (frame,) = frames_of(config.simulate, "euclid_q1", instrument, 0, config.sky[0])
            psf = tile_psf(config.simulate, "euclid_q1", instrument, tile.band, frame)
            reader = TileReader(tile)
            noise = reader.section(*(slice(0, n) for n in reader.shape)).noise
            unit = 10 ** (0.4 * (31.4 - reader.zeropoint)) * psf.factor**2
            for number, row in enumerate(rows):
                place = (np.array([row[f"{axis}_euclid_q1"]]) for axis in "xy")
                x, y = reader.wcs.all_world2pix(*plane_radec(cell, *place), 0)
                sigma = noise[round(y[0]), round(x[0])] * unit
                native = ((x[0] + 0.5) / psf.factor - 0.5, (y[0] + 0.5) / psf.factor - 0.5)
                stamp = psf.stamp(*native, 12) * row[f"flux_euclid_q1_{tile.band}"]
                total[number] += (stamp**2).sum() / sigma**2
            reader.close()
    assert np.sqrt(total) == pytest.approx(30.0, rel=0.003)
    for kind, survey in (("each", "rubin"), ("each", "euclid_q1"), ("both", "both")):
        own = bright(sky, survey, 10.0, kind)
        assert np.allclose(own[f"snr_{survey}"], 10.0)


def test_the_fit_errs_as_the_bound_says_and_the_centroid_by_more(skies):
    sky = skies("empty")
    pulls = []
    for snr in (30.0, 100.0):
        for survey in (*BANDS, "both"):
            own = bright(sky, survey, snr, "both" if survey == "both" else "each")
            for axis in "xy":
                error = np.asarray(own[f"psf_fit_d{axis}_mas_{survey}"], float)
                pulls.append(error / own[f"bound_mas_{survey}"])
    pull = np.concatenate(pulls)
    assert np.isfinite(pull).all()
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(pull)))
    own = bright(sky, "euclid_q1")
    error = np.concatenate([own[f"centroid_d{axis}_mas_euclid_q1"] for axis in "xy"])
    assert np.median(np.abs(error)) > np.median(own["bound_mas_euclid_q1"])


def test_a_crowded_sky_is_its_home_where_nothing_was_added(skies, home):
    folder, _ = home
    store = jaisp.open(folder / "results" / "home" / "patches.zarr")
    sky = skies("crowded")
    place = np.stack([sky.column("x"), sky.column("y")], axis=1)
    for survey in BANDS:
        view, before = sky.store[5][survey], store[5][survey]
        half = view.flux.shape[-1]
        axis = (np.arange(half) - (half - 1) / 2) * view.grid_arcsec
        x, y = np.meshgrid(axis + store[5].x, axis + store[5].y)
        away = np.hypot(x[..., None] - place[:, 0], y[..., None] - place[:, 1]).min(axis=-1)
        difference = (view.flux - before.flux) / before.noise
        assert np.nanmax(np.abs(difference[:, away > 2.5])) < 1.0
        assert np.nanmean(np.abs(difference[:, away > 2.5])) < 0.15  # two codes of 1/8 σ
        near = difference[:, away < 0.3]
        assert near.size
        assert np.nanmax(near) > 5.0


def test_an_empty_sky_holds_the_home_s_noise_and_no_source(skies, home):
    folder, _ = home
    store = jaisp.open(folder / "results" / "home" / "patches.zarr")
    sky = skies("empty")
    for survey, bands in BANDS.items():
        noise = np.nanmedian([sky.store[n][survey].noise for n in (0, 8)], axis=(0, 2, 3))
        expected = np.nanmedian([store[n][survey].noise for n in (0, 8)], axis=(0, 2, 3))
        assert noise == pytest.approx(expected, rel=0.04), bands
        flux = np.stack([sky.store[n][survey].flux for n in (0, 8)])
        scatter = 1.4826 * np.nanmedian(np.abs(flux), axis=(0, 2, 3))
        home_flux = np.stack([store[n][survey].flux for n in (0, 8)])
        assert (scatter < 1.02 * 1.4826 * np.nanmedian(np.abs(home_flux), axis=(0, 2, 3))).all()


def test_a_displaced_patch_shows_its_sky_where_the_table_says(skies, home):
    folder, _ = home
    store = jaisp.open(folder / "results" / "home" / "patches.zarr")
    sky = skies("displaced")
    errors = []
    for row in sky.sources:
        before, after = (s[f"field/{row['row']}"]["euclid_q1"] for s in (store, sky.store))
        image = np.nan_to_num(before.flux[0])
        found = sep.extract(image, 8 * float(np.nanmedian(before.noise[0])), minarea=6)
        width = image.shape[0]
        inner = (np.abs(found["x"] - width / 2) < width / 2 - 25) & (
            np.abs(found["y"] - width / 2) < width / 2 - 25
        )
        found = found[inner & (found["flag"] == 0)]
        middle = (width - 1) / 2
        at = np.stack(sep.winpos(image, found["x"], found["y"], 1.0)[:2], axis=1) - middle
        angle = np.radians(row["angle_deg_euclid_q1"])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        move = np.array([row["dx_mas_euclid_q1"], row["dy_mas_euclid_q1"]]) / 100  # pixels of 0.1″
        expected = at @ turn.T + move
        moved = np.stack(
            sep.winpos(np.nan_to_num(after.flux[0]), *(expected + middle).T, 1.0)[:2], axis=1
        )
        errors.append(100 * (moved - middle - expected))
    errors = np.concatenate(errors)
    assert len(errors) > 20
    assert np.median(np.abs(errors)) < 4.0
    table = sky.sources
    size = np.hypot(table["dx_mas_rubin"], table["dy_mas_rubin"])
    assert set(np.round(size)) == {0.0, 50.0, 100.0, 200.0, 500.0}
    corner = 25.6 / np.sqrt(2) * np.abs(np.radians(table["angle_deg_rubin"]))
    assert 0.0 < corner.max() < 0.1


def test_pairs_are_half_singles_and_told_apart_when_bright_and_wide(skies):
    sky = skies("pairs")
    table = sky.sources
    double = np.asarray(table["components"]) == 2
    assert double.mean() == pytest.approx(0.5, abs=0.02)
    apart = sky.column("separation_arcsec")
    assert (apart[~double] == 0).all()
    assert 0.3 <= apart[double].min() < apart[double].max() <= 1.5
    loud = (sky.column("snr") == 100) & (sky.column("flux_share") * double > 0.25) & (apart > 0.6)
    quiet = (sky.column("snr") == 100) & ~double
    assert (sky.column("peaks_euclid_q1")[loud] == 2).mean() > 0.7
    assert (sky.column("peaks_euclid_q1")[quiet] == 1).mean() > 0.7
    # Rubin's PSF tells few of them apart.
    told = (sky.column("peaks_rubin")[loud] == 2).mean()
    assert told < (sky.column("peaks_euclid_q1")[loud] == 2).mean()


def test_the_second_field_is_another_one_all_held_out(skies):
    second, empty = skies("second"), skies("second_empty")
    assert set(second.sources["split"]) == set(empty.sources["split"]) == {"test"}
    assert (second.store.index.split == 3).all()
    assert {"redshift", "flux_rubin_g", "half_light_radius_arcsec"} <= set(second.sources.colnames)
    first = skies("empty").store
    band = first.bands("rubin").index("r")
    fwhm = [np.nanmedian(s[4]["rubin"].psf_fwhm_arcsec[band]) for s in (first, empty.store)]
    assert fwhm[1] / fwhm[0] == pytest.approx(1.25, abs=0.1)
    noise = [np.nanmedian(s[4]["rubin"].noise[band]) for s in (first, empty.store)]
    assert noise[1] / noise[0] == pytest.approx(0.6**-0.5, rel=0.08)
    wide = np.nanmedian(bright(empty, "rubin", 30.0)["bound_mas_rubin"])
    assert 1.1 < wide / np.nanmedian(bright(skies("empty"), "rubin", 30.0)["bound_mas_rubin"]) < 1.4


def test_patch_wcs_of_a_moved_patch():
    from jaisp.sky import Cell, plane_xy

    centres = np.array([[30.0, -20.0]])
    move = np.array([[0.3, -0.1, 0.02]])
    cell = Cell("field", 10.0, -28.0, 25.6, centres, moves=move)
    wcs = patch_wcs(cell, 0, 0.1, 256)
    pixel = np.array([[0.0, 0.0], [200.0, 31.0], [127.5, 127.5]])
    sky = np.stack(plane_xy(cell, *wcs.all_pix2world(*pixel.T, 0)), axis=1) - centres
    turn = np.array([[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]])
    assert np.allclose(sky @ turn.T + move[0, :2], (pixel - 127.5) * 0.1, atol=1e-6)
