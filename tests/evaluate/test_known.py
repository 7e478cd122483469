"""Sources of a field with truth: where they are, how bright, and what is cut around them."""

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.evaluate.known import known_sky
from jaisp.evaluate.stamps import APERTURES, Images, Stamps
from jaisp.sky import plane_radec
from tests.evaluate.known_skies import FAINT, SETTINGS, truth_table
from tests.evaluate.skies import FWHM, SURVEYS, TOKEN

SIGMA = FWHM / 2.3548


def test_snr_is_the_matched_filters(known):
    width = np.sqrt(SIGMA**2 + (known.sky.column("half_light_radius_arcsec") / 1.1774) ** 2)
    expected = known.sky.column("flux_sharp_r") / (FAINT * np.sqrt(4 * np.pi) * width)
    assert known.sky.column("snr_sharp_r") == pytest.approx(expected, rel=0.03)
    both = np.sqrt(known.sky.column("snr_wide_g") ** 2 + known.sky.column("snr_wide_i") ** 2)
    assert known.snr("wide") == pytest.approx(both)


def test_sources_are_bright_enough_one_a_token_and_on_their_own_sky(known, store):
    snr = np.max([known.sky.column(f"snr_{s}_{b}") for s, b in known.bands], axis=0)
    assert snr.min() >= SETTINGS.snr_min
    assert len(np.unique(known.tokens, axis=0)) == len(known)
    for source in known.sky.sources:
        patch = store[f"{source['cell']}/{source['row']}"]
        assert patch.split == source["split"]
        assert max(abs(source["x"] - patch.x), abs(source["y"] - patch.y)) < store.patch_arcsec / 2
    assert 0.3 < known.is_test.mean() < 0.7
    assert known.truth == "simulated"


def test_tokens_hold_their_sources(known, store):
    half = store.patch_arcsec / 2
    corner = np.array([store.index.y.min() - half, store.index.x.min() - half])
    place = np.stack([known.sky.column("y"), known.sky.column("x")], axis=1)
    assert (np.floor((place - corner) / TOKEN) == known.tokens).all()


def test_apertures_hold_the_flux_of_a_gaussian(known):
    bright = (known.sky.column("snr_sharp_r") > 50) & np.asarray(known.sky.sources["isolated"])
    assert bright.sum() > 40
    for survey, stamps in known.stamps.items():
        for band, name in enumerate(stamps.bands):
            flux = known.sky.column(f"flux_{survey}_{name}")
            for number, (factor, least) in enumerate(APERTURES):
                radius = min(max(factor * FWHM, least), 1.55)
                share = stamps.apertures()[:, band, number] / flux
                enclosed = 1 - np.exp(-(radius**2) / 2 / SIGMA**2)
                assert np.median(share[bright]) == pytest.approx(enclosed, abs=0.04)


def test_neighbours_are_told_apart(store):
    table = truth_table(store)[:1]
    for name in ("flux_sharp_r", "flux_wide_g", "flux_wide_i"):
        table[name] = 5000.0
    (row,) = np.flatnonzero(store.index.split == 3)[:1]
    place = store.cell("field")
    ra, dec = plane_radec(place, store.index.x[[row]], store.index.y[[row]])
    pair = Table(np.repeat(table.as_array(), 3))
    # A faint companion at 1″ doesn't disturb; a third source, as bright, is at 1.8″.
    pair["ra"] = ra + np.array([0, 1, 0]) / 3600 / np.cos(np.radians(dec))
    pair["dec"] = dec + np.array([0, 0, 1.8]) / 3600
    for name in ("flux_sharp_r", "flux_wide_g", "flux_wide_i"):
        pair[name] *= [1.0, 0.05, 1.0]
    two = known_sky(store, SETTINGS, pair[:2])
    assert two.sky.sources["isolated"].tolist() == [True]
    three = known_sky(store, SETTINGS, pair)
    assert not three.sky.sources["isolated"].any()


def test_without_truth_sep_stands_for_it(store, known):
    found = known_sky(store, SETTINGS)
    assert found.truth == "sep"
    assert "redshift" not in found.sky.sources.colnames
    apart = np.hypot(*(known.sky.column(c)[:, None] - found.sky.column(c) for c in "xy"))
    nearest = apart.argmin(axis=1)
    near = (apart.min(axis=1) < 0.3) & (known.sky.column("snr_sharp_r") > 50)
    near &= np.asarray(known.sky.sources["isolated"], bool)
    share = found.sky.column("flux_wide_i")[nearest] / known.sky.column("flux_wide_i")
    assert near.sum() > 30
    assert np.median(share[near]) == pytest.approx(1 - np.exp(-1 / 2 / SIGMA**2), abs=0.04)


def test_nothing_known_is_none(store):
    assert known_sky(store, replace_settings(snr_min=1e6), truth_table(store)) is None


def replace_settings(**changes):
    return SETTINGS.model_copy(update=changes)


@settings(max_examples=25, deadline=None)
@given(
    size=st.floats(0.3, 0.6),
    ellipticity=st.floats(0, 0.4),
    angle=st.floats(0, np.pi),
    offset=st.tuples(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7)),
)
def test_moments_are_those_of_a_gaussian(size, ellipticity, angle, offset):
    grid, side = 0.1, 48
    axis = (np.arange(side) + 0.5 - side / 2) * grid
    x, y = np.meshgrid(axis - offset[0], axis - offset[1])
    shape = size**2 * np.array(
        [
            [1 + ellipticity * np.cos(2 * angle), ellipticity * np.sin(2 * angle)],
            [ellipticity * np.sin(2 * angle), 1 - ellipticity * np.cos(2 * angle)],
        ]
    )
    inverse = np.linalg.inv(shape)
    image = np.exp(-(inverse[0, 0] * x**2 + inverse[1, 1] * y**2 + 2 * inverse[0, 1] * x * y) / 2)
    stamps = Stamps(
        "sharp",
        ["r"],
        grid,
        Images.whole(image[None, None].astype(np.float32)),
        np.ones((1, 1), np.float32),
        np.full((1, 1), 0.5, np.float32),
        np.array([offset]),
    )
    found = stamps.moments()[0, 0]
    assert found[0] == pytest.approx(2 * size**2, rel=0.03)
    assert found[1] == pytest.approx(ellipticity * np.cos(2 * angle), abs=0.02)
    assert found[2] == pytest.approx(ellipticity * np.sin(2 * angle), abs=0.02)


def test_surveys_are_those_of_the_sky(known):
    assert set(known.stamps) == set(SURVEYS)
