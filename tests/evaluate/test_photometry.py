"""Photometry, morphology and reconstruction of planted tokens: an oracle at the top, what knows
nothing at chance, what is displaced found out."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.evaluate.known import known_sky
from jaisp.evaluate.morphology import morphology, morphology_targets
from jaisp.evaluate.photometry import photometry, photometry_targets
from jaisp.evaluate.plots import morphology as plots_morphology
from jaisp.evaluate.plots import photometry as plots_photometry
from jaisp.evaluate.plots import reconstruction as plots_reconstruction
from jaisp.evaluate.reconstruction import images, reconstruction
from jaisp.evaluate.seen import features_of
from tests.evaluate.known_skies import (
    PER_ARCMIN2,
    SETTINGS,
    planted,
    truth_table,
    vary_colours,
)
from tests.evaluate.skies import Constant, Noise, Oracle, Position, publish_sky, sky_config

CHANCE = 0.02


@pytest.fixture(scope="module")
def ignorant(known):
    """What encoders that know nothing say, by name."""
    encoders = {"constant": Constant(), "position": Position(), "noise": Noise()}
    return {
        name: features_of(known, dict.fromkeys(("model", "random", "blank"), own), SETTINGS)
        for name, own in encoders.items()
    }


@pytest.fixture(scope="module")
def seeing(known):
    """What an encoder says that sees the pixels."""
    return features_of(known, {"model": Oracle(), "random": Noise(), "blank": Constant()}, SETTINGS)


@pytest.fixture(scope="module")
def rows_of_seeing(known, seeing):
    """Rows of the encoder that sees the pixels: photometry and reconstruction."""
    return photometry(known, seeing, SETTINGS), reconstruction(known, seeing, SETTINGS)


def test_tokens_that_hold_the_truth_reach_the_top(known):
    coloured = vary_colours(known)
    values = np.stack([target.values for target in photometry_targets(coloured)], axis=1)
    rows = photometry(coloured, planted(coloured, values), SETTINGS)
    targets = ["sharp:r", "wide:g", "wide:i", "wide:g-i", "redshift"]
    assert [(r["survey"], r["target"]) for r in rows] == [
        (view, target) for view in ("sharp", "wide", "both") for target in targets
    ]
    for row in rows:
        assert row["r2"] > 0.95
        assert row["r2_low"] <= row["r2"] <= row["r2_high"]
        assert row["scatter_low"] <= row["scatter"] <= row["scatter_high"]
        for control in ("random", "blank", "shuffled"):
            assert row[f"{control}_r2"] < CHANCE
        assert row["underpowered"] == (row["n"] < 1000)
    assert {row["unit"] for row in rows} == {"dex", "mag", "Δz/(1+z)"}


@pytest.mark.parametrize("name", ["constant", "position", "noise"])
def test_tokens_that_know_nothing_are_at_chance(known, ignorant, name):
    coloured = vary_colours(known)
    for row in [
        *photometry(coloured, ignorant[name], SETTINGS),
        *morphology(coloured, ignorant[name], SETTINGS),
    ]:
        assert row["r2_low"] <= CHANCE
        assert row["r2"] < 0.06
    for row in reconstruction(known, ignorant[name], SETTINGS):
        assert row["r_low"] <= 3 * CHANCE
        assert abs(row["r"]) < 0.1


def test_pixels_tell_the_flux_in_both_surveys(rows_of_seeing):
    for row in rows_of_seeing[0]:
        if ":" in row["target"] and "-" not in row["target"]:
            assert row["r2"] > 0.7
            assert row["aperture_r2"] > 0.7
            assert row["isolated_aperture_r2"] > 0.9
            assert row["isolated_r2"] > 0.8
            assert max(row["shuffled_r2"], row["random_r2"]) < CHANCE
        else:  # colours are all zero, and redshifts not shown
            assert not row["r2"] > 2 * CHANCE


def test_the_wrong_tokens_are_found_out(known, rows_of_seeing):
    """Displaced by more than an encoder sees, its tokens are at chance."""
    encoders = {"model": Oracle(), "random": Noise(), "blank": Constant()}
    moved = replace(known, tokens=known.tokens + np.array([0, 5]))
    assert rows_of_seeing[0][0]["r2"] > 0.7
    wrong = features_of(moved, encoders, SETTINGS, {"sharp": ("sharp", ["r"])})
    assert photometry(known, wrong, SETTINGS)[0]["r2"] < 2 * CHANCE


def test_shapes_that_tokens_hold_are_found(known):
    rows = morphology(known, planted(known, morphology_targets(known)), SETTINGS)
    names = ("log_half_light_radius", "e1", "e2")
    assert [r["target"] for r in rows] == [*names] * 3
    for row in rows:
        assert row["r2"] > 0.95
        assert row["scatter"] < 0.05
        # The images are of points: moments know nothing of these sizes and shapes.
        assert max(row[f"{c}_r2"] for c in ("moments", "random", "blank", "shuffled")) < 0.05


def test_images_that_tokens_hold_are_decoded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bright = publish_sky(sky_config(), per_arcmin2=PER_ARCMIN2)
    known = known_sky(bright, SETTINGS, truth_table(bright))
    pixels = np.concatenate(
        [images(s).reshape(len(known), -1) for s in known.stamps.values()], axis=1
    )
    rows = reconstruction(known, planted(known, _components(pixels), error=0.01), SETTINGS)
    assert [(r["survey"], r["target"]) for r in rows] == [
        ("sharp", "wide:g"),
        ("sharp", "wide:i"),
        ("wide", "sharp:r"),
    ]
    for row in rows:
        assert row["r"] > 0.95
        assert row["r_low"] <= row["r"] <= row["r_high"]
        # Both surveys have the same PSF: nothing is lost but to noise.
        assert row["interpolation_r"] > 0.97
        for control in ("random", "blank", "shuffled"):
            assert row[f"{control}_r"] < 0.1


def _components(pixels):
    centred = np.nan_to_num(pixels) - np.nan_to_num(pixels).mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, :30] * s[:30]


def test_seeing_encoders_reconstruct(rows_of_seeing):
    for row in rows_of_seeing[1]:
        assert row["r"] > 0.5
        assert row["r"] > row["random_r"] + 0.3


def test_sky_without_truth_is_measured_against_sep(store):
    found = known_sky(store, SETTINGS)
    encoders, shown = {"model": Oracle(), "random": Noise()}, {"wide": ("wide", ["g", "i"])}
    seen = features_of(found, encoders, SETTINGS, shown)
    rows = photometry(found, seen, SETTINGS)
    assert {row["truth"] for row in rows} == {"sep"}
    assert not any(row["target"] == "redshift" for row in rows)
    assert all(row["r2"] > 0.6 for row in rows if "-" not in row["target"])
    assert morphology(found, seen, SETTINGS) == []


def test_plots(known, seeing, rows_of_seeing):
    photometric, reconstructed = rows_of_seeing
    drawn = (
        plots_photometry.photometry(photometric),
        plots_morphology.morphology(morphology(known, seeing, SETTINGS)),
        plots_reconstruction.reconstruction(reconstructed),
    )
    for figure in drawn:
        figure.draw_without_rendering()
        assert figure.axes[0].lines
