"""Surveys that were displaced by known amounts, read by planted tokens and by planted encoders."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.controls import Blank
from jaisp.evaluate.displaced import Patches
from jaisp.evaluate.motion import Motion, Moves
from jaisp.evaluate.registration import registered, registration, registration_rows
from jaisp.evaluate.sighting import Sighting, fit_readers
from jaisp.evaluate.withheld import withheld
from jaisp.evaluate.withheld_registration import registration_figure
from tests.evaluate.displaced_skies import SHIFTS, publish_displaced
from tests.evaluate.skies import SURVEYS, Noise, OneBand, Oracle, publish_sky, sky_config

SETTINGS = EvaluateConfig(resamples=100)
TOKEN_MAS = 1600.0
TILES_APART = np.array([60.0, -40.0])  # mas, that the tiles of the two surveys lie apart
SOURCES = 20  # a patch
PATCHES = 120


@pytest.fixture(scope="module")
def patches() -> Patches:
    rng = np.random.default_rng(1)
    number, motion = np.arange(PATCHES), {}
    for survey in ("a", "b"):
        size, angle = rng.permutation(np.resize(SHIFTS, PATCHES)), rng.uniform(0, 7, PATCHES)
        shift = np.stack([size * np.cos(angle), size * np.sin(angle)], axis=1)
        motion[survey] = Motion(shift, rng.uniform(-2, 2, PATCHES))
    is_train = number % 2 == 0
    return Patches(number, number, ["field"] * PATCHES, is_train, ~is_train, motion)


def planted(patches, knows="offset", astray=0.0):
    """Tokens that are a projection of the source's offset from the token, with an error; those of
    `a` are `astray` (mas) from where they should be."""
    rng = np.random.default_rng(2)
    number = np.repeat(np.arange(PATCHES * SOURCES), 2)
    patch = number // SOURCES
    place = np.repeat(rng.uniform(-24, 24, (PATCHES * SOURCES, 2)), 2, axis=0)
    snr = np.repeat(10 ** rng.uniform(1, 2, PATCHES * SOURCES), 2)
    offset = rng.uniform(-TOKEN_MAS / 2, TOKEN_MAS / 2, place.shape)
    matrix = np.random.default_rng(3).normal(size=(2, 24)) / 1000

    def tokens(where):
        error = np.repeat(rng.normal(size=(PATCHES * SOURCES, 2)), 2, axis=0) * sigma(snr)[:, None]
        seen = (where + error) @ matrix
        if knows != "offset":
            nothing = rng.normal(size=seen.shape)
            never_moved = offset @ matrix
            seen = {"nothing": nothing, "one thing": 0 * seen, "the place": never_moved}[knows]
        return {
            "model": seen.astype(np.float32),
            "random": rng.normal(size=seen.shape).astype(np.float32),
        }

    own = tokens(offset + patches.motion["b"].at(patch, place))
    away = tokens(offset + patches.motion["a"].at(patch, place) + TILES_APART + [astray, 0])
    token = np.zeros((len(number), 2), int)
    pair = Sighting("a", "b", number, patch, token, place, snr, away, own, tokens(offset))
    _, first = np.unique(number, return_index=True)
    moved = patches.motion["a"].at(patch, place) + TILES_APART + rng.normal(0, 10, place.shape)
    return pair, Moves(patch[first], place[first], moved[first], snr[first])


def sigma(snr):
    """Error of one survey's tokens of one source, mas."""
    return 1000 / snr


def rows_of(patches, pair, matched):
    phase = patches.motion["a"].shift + TILES_APART
    readers = fit_readers(patches, pair, SETTINGS)
    return registration_rows(patches, pair, readers, matched, phase, SETTINGS)


@pytest.fixture(scope="module")
def oracle(patches):
    return rows_of(patches, *planted(patches))


def test_an_oracle_reaches_the_noise_of_its_tokens(patches, oracle):
    pair, rows = planted(patches)[0], oracle
    assert [row["shift_mas"] for row in rows] == list(SHIFTS)
    _, first = np.unique(pair.number, return_index=True)
    information = np.bincount(pair.patch[first], 1 / (2 * sigma(pair.snr[first]) ** 2))
    best = np.sqrt(np.mean(1 / information))  # a few mas
    errors = np.array([row["error_mas"] for row in rows])
    assert sum(row["n"] for row in rows) == PATCHES // 2
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(best, rel=0.35)
    for row in rows:
        assert row["error_mas_low"] <= row["error_mas"] <= row["error_mas_high"]
        assert row["sources"] == SOURCES * row["n"]
        assert row["underpowered"]
        # What catalogues and phases say is right up to how far apart the tiles lie.
        assert row["catalogue_mas"] < 2 * 10 / np.sqrt(SOURCES)
        assert row["phase_correlation_mas"] < 1e-6 + row["shift_mas"]
        assert row["rotation_error"] < 0.5 * row["constant_rotation_error"]
        for control in ("random", "shuffled"):
            assert row[f"{control}_mas"] >= 0.8 * row["constant_mas"]
        assert row["constant_mas"] == pytest.approx(row["shift_mas"], rel=0.5)


def test_of_few_patches_one_survey_alone_teaches_most(patches):
    """Tokens that hold places in their last two dimensions, and what changes from one survey to the
    other in all others: 14 training patches can't tell which is which, the one survey's own pairs
    can."""
    few = replace(patches, is_train=patches.is_train & (patches.home < 28))
    pair, _ = planted(few)
    rng = np.random.default_rng(4)
    own_noise, other_noise = rng.normal(size=(2, len(pair.number), 14, 9))

    def tokens(plain, noise):
        place = plain["model"] @ np.linalg.pinv(np.random.default_rng(3).normal(size=(2, 24)))
        middle = np.zeros((len(place), 2, 9))
        middle[:, :, 4] = place
        whole = np.concatenate([noise, middle], axis=1).reshape(len(place), -1)
        return {"model": whole.astype(np.float32)}

    sides = {
        "away": tokens(pair.away, other_noise),
        "own": tokens(pair.own, own_noise),
        "here": tokens(pair.here, own_noise),
    }
    readers = fit_readers(few, replace(pair, **sides), SETTINGS)
    assert readers["model"].kind == "peaks of one survey"
    found = readers["model"].motion(replace(pair, **sides), len(few))
    right = few.motion["a"].shift[few.is_test]
    wrong = found.shift[few.is_test] - right
    assert np.median(np.abs(wrong)) < 0.2 * np.median(np.abs(right))


def test_a_patch_that_did_not_move_proves_nothing(oracle):
    assert [row["claim"] for row in oracle][::4] == [False, True]


@pytest.mark.parametrize("knows", ["nothing", "one thing", "the place"])
def test_tokens_that_know_nothing_score_as_no_answer(patches, knows):
    for row in rows_of(patches, *planted(patches, knows=knows)):
        assert row["error_mas"] >= 0.8 * row["constant_mas"]


def test_tokens_a_place_away_are_found_out(patches, oracle):
    """By the readout of the other survey's tokens; its own has learnt to live with it."""
    wrong = rows_of(patches, *planted(patches, astray=TOKEN_MAS))
    assert max(row["shared_mas"] for row in oracle) < 100
    assert min(row["shared_mas"] for row in wrong) > 300


@pytest.fixture(scope="module")
def displaced(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("registration"))
        put = {"shift": (0.11, -0.07), "per_arcmin2": 100.0}
        yield (
            publish_sky(sky_config(test=0.3), **put),
            publish_displaced(sky_config(test=0.3, run="displaced"), **put),
        )


def pooled(rows, name):
    """Root mean square over sizes of the shift above 0, relative to no answer."""
    return np.sqrt(np.mean([(r[name] / r["constant_mas"]) ** 2 for r in rows if r["shift_mas"]]))


def test_images_in_shifts_out(displaced):
    """From pixels: what is fitted on a dozen patches is worth a few tens of mas."""
    encoders = {"model": Oracle(), "blank": Blank(Noise(), 1)}
    rows = registration(*displaced, encoders, SETTINGS)
    assert {(row["survey"], row["target"]) for row in rows} == {
        ("sharp", "wide"),
        ("wide", "sharp"),
    }
    for row in rows:
        assert row["catalogue_mas"] < 3
        assert row["phase_correlation_mas"] < 60 + 0.2 * row["shift_mas"]
        assert row["field"] == "displaced"
    assert pooled(rows, "error_mas") < 0.4
    for control in ("blank", "shuffled"):
        assert pooled(rows, f"{control}_mas") == pytest.approx(1, abs=0.15)


def test_without_the_band_that_is_looked_at_no_shift_is_found(displaced):
    home, away = displaced
    encoders = {"model": OneBand("i"), "random": Noise()}
    bands = {survey: bands for survey, (bands, _) in SURVEYS.items()}
    rows = [
        row
        for pair in registered(home, away, encoders, SETTINGS)
        for row in withheld(
            [registration_figure(pair, away.store, encoders, SETTINGS)], bands, SETTINGS
        )
    ]
    assert [(row["figure"], row["withheld"]) for row in rows] == [
        ("registration error_mas wide>sharp", band) for band in ("g", "i")
    ]
    unseen, seen = rows
    assert unseen["loss"] == pytest.approx(0, abs=1e-6 * unseen["complete"])
    assert seen["loss_low"] > 0
    for row in rows:
        assert row["complete"] < 0.6 * row["constant_complete"]
        assert row["constant_loss"] == 0
        assert abs(row["random_loss"]) < 0.2 * row["constant_complete"]
        assert row["n"] == 10
        assert row["underpowered"]
