"""Cells, patches and splits."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.config import group_hash, load_config
from jaisp.config.geometry import Region
from jaisp.sky import (
    NONE,
    TEST,
    TRAIN,
    VALIDATION,
    cells,
    in_region,
    patch_wcs,
    plane_radec,
    plane_xy,
    splits,
)
from jaisp.sky.division import _pixel_patches
from jaisp.sky.split import SEPARATION_ARCSEC
from tests.configs import small_config, write_config


def config_of(tmp_path, **changes):
    return load_config(write_config(tmp_path, small_config(**changes)))


def region(ra=10.0, dec=-30.0, width=8.5, height=8.5):
    return {"ra": ra, "dec": dec, "width_arcmin": width, "height_arcmin": height}


def test_a_field_is_one_cell_of_abutting_patches(tmp_path):
    (cell,) = cells(config_of(tmp_path, sky=region(), patch={"arcsec": 51.2}))
    assert (cell.name, cell.ra, cell.dec, len(cell)) == ("field", 10.0, -30.0, 100)
    steps = np.diff(np.unique(cell.centres[:, 0]))
    np.testing.assert_allclose(steps, 51.2)
    np.testing.assert_allclose(cell.centres.mean(axis=0), 0.0, atol=1e-9)


def test_several_regions_are_a_cell_each(tmp_path):
    sky = [region(ra=10.0), region(ra=20.0)]
    assert [c.name for c in cells(config_of(tmp_path, sky=sky))] == ["field0", "field1"]


def test_wide_sky_is_cut_along_healpix_without_gap_or_overlap(tmp_path):
    sky = region(ra=0.1, dec=40.0, width=60.0, height=60.0)
    config = config_of(tmp_path, sky=sky, patch={"arcsec": 102.4})
    found = cells(config)
    assert all(c.name.startswith("o7p") and len(c.name) == 10 for c in found)
    assert [c.name for c in found] == sorted(c.name for c in found)
    area = sum(len(c) for c in found) * 102.4**2 / 3600
    assert area == pytest.approx(60.0 * 60.0, rel=0.05)
    from astropy_healpix import HEALPix

    healpix = HEALPix(nside=128, order="nested", frame="icrs")
    for cell in found:
        owner = healpix.skycoord_to_healpix(SkyCoord(*cell.sky_centres(), unit="deg"))
        assert set(owner) == {int(cell.name[3:])}


WIDE = {"sky": region(ra=200.0, dec=-35.0, width=200.0, height=150.0), "patch": {"arcsec": 204.8}}


def test_planning_wide_sky_works_out_patches_only_where_it_ends(tmp_path, monkeypatch):
    asked = []

    def counted(order, index, *rest):
        asked.append(f"o{order}p{index:07d}")
        return _pixel_patches(order, index, *rest)

    monkeypatch.setattr("jaisp.sky.division._pixel_patches", counted)
    config = config_of(tmp_path, **WIDE)
    found = cells(config)
    for cell in found:
        group_hash(config, "wide", cell)
    left = [cell for cell in found if cell.name not in asked]
    assert len(left) >= 8
    assert all(cell.whole for cell in left)
    for cell in left:
        # What was not asked for is what asking would have given.
        held = in_region(config.sky[0], *cell.sky_centres())
        assert held.all()
        assert len(cell) > 40


def test_a_cell_is_the_same_however_far_the_sky_goes_on(tmp_path):
    """Its hash too, whether its patches were worked out to plan or not."""
    near = config_of(tmp_path, **WIDE)
    larger = {"width_arcmin": 260.0, "height_arcmin": 210.0}
    far = config_of(tmp_path, **{**WIDE, "sky": WIDE["sky"] | larger})
    first, more = ({c.name: c for c in cells(config)} for config in (near, far))
    assert set(first) < set(more)
    grown = 0
    for name, cell in first.items():
        same = np.array_equal(cell.centres, more[name].centres)
        hashes = [group_hash(near, "wide", c) for c in (cell, more[name])]
        assert same == (hashes[0] == hashes[1])
        grown += not same
    assert 0 < grown < len(first)


def test_cells_of_a_moc_are_whole_but_where_it_ends(tmp_path):
    from astropy_healpix import HEALPix
    from mocpy import MOC

    # Ten pixels of order 7 and a quarter of another.
    pixels = [70_000 + i for i in range(10)]
    cut = MOC.from_healpix_cells(
        np.array([*pixels, 4 * 70_010], np.uint64), np.array([7] * 10 + [8], np.uint8), 8
    )
    cut.save(tmp_path / "sky.fits", format="fits")
    config = config_of(tmp_path, sky={"moc": "sky.fits"}, patch={"arcsec": 102.4})
    found = cells(config)
    assert [cell.name for cell in found] == [f"o7p{i:07d}" for i in (*pixels, 70_010)]
    assert [cell.whole for cell in found] == [True] * 10 + [False]
    finer = HEALPix(nside=256, order="nested", frame="icrs")
    for cell in found:
        sky = SkyCoord(*cell.sky_centres(), unit="deg")
        assert np.asarray(cut.contains_skycoords(sky)).all()
    assert set(finer.skycoord_to_healpix(sky)) == {4 * 70_010}


@settings(max_examples=30, deadline=None)
@given(
    ra=st.floats(0, 359.99),
    dec=st.floats(-89.5, 89.5),
    x=st.floats(-700, 700),
    y=st.floats(-700, 700),
)
def test_plane_and_sky_round_trip(tmp_path_factory, ra, dec, x, y):
    from jaisp.sky import Cell

    cell = Cell("field", ra, dec, 51.2, np.zeros((1, 2)))
    back = plane_xy(cell, *plane_radec(cell, np.array(x), np.array(y)))
    np.testing.assert_allclose(back, (x, y), atol=1e-5)


def test_patch_wcs_is_north_up_and_centred(tmp_path):
    (cell,) = cells(config_of(tmp_path, sky=region(), patch={"arcsec": 51.2}))
    wcs = patch_wcs(cell, 0, 0.2, 256)
    centre = wcs.pixel_to_world(127.5, 127.5)
    ra, dec = cell.sky_centres()
    assert centre.separation(SkyCoord(ra[0], dec[0], unit="deg")).mas < 1e-3
    # Row 0 is the south-east corner: x grows towards the west, y towards the north.
    assert ra[0] > 10.0
    assert dec[0] < -30.0
    assert wcs.pixel_to_world(127.5, 200).dec > centre.dec
    assert wcs.pixel_to_world(200, 127.5).ra < centre.ra


def closest_gap(config, strong, weak):
    """Smallest gap (arcsec) between footprints of two splits, on the sky."""
    found = cells(config)
    assigned = splits(config, found)
    sky = [SkyCoord(*c.sky_centres(), unit="deg") for c in found]
    split = np.concatenate([assigned[c.name] for c in found])
    ra = np.concatenate([s.ra.deg for s in sky])
    dec = np.concatenate([s.dec.deg for s in sky])
    one = SkyCoord(ra[split == strong], dec[split == strong], unit="deg")
    other = SkyCoord(ra[split == weak], dec[split == weak], unit="deg")
    dx = (one.ra.deg[:, None] - other.ra.deg) * np.cos(np.radians(found[0].dec)) * 3600
    dy = (one.dec.deg[:, None] - other.dec.deg) * 3600
    return np.maximum(abs(dx), abs(dy)).min() - config.patch.arcsec


@pytest.mark.parametrize("seed", [1, 2])
def test_stripes_keep_splits_apart(tmp_path, seed):
    config = config_of(
        tmp_path,
        sky=region(dec=0.0),
        patch={"arcsec": 51.2},
        split={"test": 0.2, "validation": 0.1, "seed": seed},
    )
    split = splits(config, cells(config))["field"]
    assert (split == TEST).sum() == 20
    assert (split == VALIDATION).sum() == 10
    assert (split == TRAIN).sum() == 50
    assert (split == NONE).sum() == 20
    for strong, weak in ((TEST, TRAIN), (TEST, VALIDATION), (VALIDATION, TRAIN)):
        assert closest_gap(config, strong, weak) > SEPARATION_ARCSEC


def test_a_field_too_small_to_hold_sky_out_trains_on_all_of_it(tmp_path):
    config = config_of(tmp_path, split={"test": 0.2, "validation": 0.2})
    assert (splits(config, cells(config))["field"] == TRAIN).all()


def test_held_out_regions_touch_no_training_patch(tmp_path):
    held_out = region(ra=10.02, dec=0.01, width=3.0, height=3.0)
    config = config_of(
        tmp_path,
        sky=region(dec=0.0),
        patch={"arcsec": 51.2},
        split={"test": [held_out], "validation": 0.0},
    )
    (cell,) = cells(config)
    split = splits(config, [cell])["field"]
    assert (split == TEST).sum() >= 4
    assert closest_gap(config, TEST, TRAIN) > SEPARATION_ARCSEC
    half = cell.patch_arcsec / 2 + SEPARATION_ARCSEC
    for dx in (-half, 0, half):
        for dy in (-half, 0, half):
            corner = plane_radec(cell, cell.centres[:, 0] + dx, cell.centres[:, 1] + dy)
            assert not in_region(Region(**held_out), *corner)[split == TRAIN].any()


def test_many_cells_are_split_whole_by_their_name(tmp_path):
    sky = region(ra=200.0, dec=0.0, width=180.0, height=180.0)
    config = config_of(
        tmp_path, sky=sky, patch={"arcsec": 204.8}, split={"test": 0.2, "validation": 0.1}
    )
    found = cells(config)
    assigned = splits(config, found)
    assert len(found) >= 20
    kinds = {c.name: set(assigned[c.name]) - {NONE} for c in found}
    assert all(len(kind) <= 1 for kind in kinds.values())
    fewer = [c for c in found if TEST in kinds[c.name]] + found[:20]
    fewer = sorted(set(fewer), key=lambda c: c.name)
    again = splits(config, fewer)
    for cell in fewer:
        if TEST in kinds[cell.name]:
            np.testing.assert_array_equal(again[cell.name] == TEST, assigned[cell.name] == TEST)
    assert closest_gap(config, TEST, TRAIN) > SEPARATION_ARCSEC
