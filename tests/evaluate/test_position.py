"""Position off planted tokens: what knows the truth scores at its error, what doesn't at chance."""

import numpy as np
import pytest
from astropy.table import Table

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate import position as module
from jaisp.evaluate import withheld_position
from jaisp.evaluate.injected import InjectedSky, features, reference_tokens
from jaisp.evaluate.position import position
from jaisp.evaluate.withheld import withheld
from jaisp.evaluate.withheld_position import position_figures
from jaisp.sky import cells
from jaisp.store.reader import Store
from tests.evaluate.skies import (
    SURVEYS,
    TOKEN,
    Constant,
    Noise,
    Position,
    draw_sources,
    grid_of,
    publish_sky,
    sky_config,
)

SETTINGS = EvaluateConfig(resamples=100, edge_tokens=2)
BOUND = {10.0: 30.0, 100.0: 3.0}
A_LEVEL = 600
SUBCELLS = 4  # a token's, along a side


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("injected"))
        return publish_sky(sky_config(), per_arcmin2=12)


@pytest.fixture(scope="module")
def sky(store) -> InjectedSky:
    """Sources at random places of the field, whatever is there: their tokens are planted."""
    rng = np.random.default_rng(5)
    half = store.patch_arcsec / 2 - 2 * TOKEN
    rows = []
    for level, bound in BOUND.items():
        for number in range(2 * A_LEVEL):
            row = int(rng.integers(len(store)))
            x = store.index.x[row] + rng.uniform(-half, half)
            y = store.index.y[row] + rng.uniform(-half, half)
            kind, split = ("each", "both")[number % 2], ("train", "test")[number // 2 % 2]
            rows.append(_row(row, x, y, level, bound, kind, split, rng))
    return InjectedSky("empty", store, Table(rows=rows))


def _row(row, x, y, level, bound, kind, split, rng) -> dict:
    own = {"cell": "field", "row": row, "x": x, "y": y}
    own |= {"snr": level, "kind": kind, "split": split}
    for survey in ("sharp", "wide", "both"):
        own |= {f"x_{survey}": x, f"y_{survey}": y, f"bound_mas_{survey}": bound}
        for name, worse in (("centroid", 1.5), ("psf_fit", 1.0)):
            for axis in "xy":
                own[f"{name}_d{axis}_mas_{survey}"] = rng.normal(0, worse * bound)
    return own


def plant(monkeypatch, wrong_survey: str = "", knows: bool = True, trap_survey: str = "") -> None:
    """Let every encoder's features be a random projection of offsets that err by the bound.

    trap_survey: features of one dimension more, two of which tell where a source is in this survey,
    and nothing in others.
    """

    def planted(sky, survey, encoders, tokens, edge_tokens):
        rng = np.random.default_rng(list(survey.encode()))
        half = sky.store.patch_arcsec / 2
        corner = np.array([sky.store.index.y.min() - half, sky.store.index.x.min() - half])
        tokens = tokens + np.array([0, int(survey == wrong_survey)])
        place = np.stack([sky.column("y"), sky.column("x")], axis=1)
        offset = place - corner - (tokens + 0.5) * TOKEN
        offset += rng.normal(size=offset.shape) * sky.column("bound_mas_sharp")[:, None] / 1000
        matrix = np.random.default_rng(3).normal(size=(2, 27))  # nine tokens of three
        seen = offset @ matrix
        if trap_survey:
            told = place - corner - (tokens + 0.5) * TOKEN
            told = told if survey == trap_survey else 30 * rng.normal(size=told.shape)
            seen = np.concatenate([seen, np.pad(told, ((0, 0), (0, 7)))], axis=1)
        nothing = rng.normal(size=seen.shape)
        own = {"model": seen if knows else nothing, "random": nothing, "blank": 0 * nothing}
        return {name: {"tokens": own[name].astype(np.float32)} for name in encoders}

    monkeypatch.setattr(module, "features", planted)


ENCODERS = {"model": Constant(), "random": Noise(), "blank": Constant()}


def test_offsets_are_uniform_over_a_token_each_way(sky):
    tokens, centres = reference_tokens(sky, seed=1)
    offset = (np.stack([sky.column("x"), sky.column("y")], axis=1) - centres) / TOKEN
    assert np.abs(offset).max() <= 1
    assert np.histogram(offset, bins=8, range=(-1, 1))[0] == pytest.approx(
        np.full(8, offset.size / 8), rel=0.2
    )
    assert tokens.min() >= 0


def test_features_are_of_the_sky_around_the_reference(store):
    """The brightest spot in 3 × 3 tokens is where the source is, in both surveys."""
    (cell,) = cells(sky_config())
    bright = draw_sources(cell, 12, seed=1)
    half = store.patch_arcsec / 2
    low = np.array([store.index.x.min(), store.index.y.min()]) - half
    high = np.array([store.index.x.max(), store.index.y.max()]) + half
    apart = np.hypot(*(bright[:, None, :2] - bright[None, :, :2]).T)
    np.fill_diagonal(apart, np.inf)
    margin = 3 * TOKEN
    chosen = (apart.min(axis=0) > 6) & (bright[:, 2] > 1000)
    chosen &= ((bright[:, :2] > low + margin) & (bright[:, :2] < high - margin)).all(axis=1)
    places = bright[chosen, :2]
    assert len(places) > 20
    table = Table({"cell": ["field"] * len(places), "x": places[:, 0], "y": places[:, 1]})
    sky = InjectedSky("empty", store, table)
    tokens, centres = reference_tokens(sky, seed=1)
    for survey in SURVEYS:
        seen = features(sky, survey, {"light": Light()}, tokens, edge_tokens=2)["light"]["tokens"]
        side = 3 * SUBCELLS
        # Features stand by sub-cell, then by token.
        stamps = seen.reshape(-1, SUBCELLS, SUBCELLS, 3, 3).transpose(0, 3, 1, 4, 2)
        brightest = stamps.reshape(len(seen), -1).argmax(axis=1)
        found = np.stack(np.unravel_index(brightest, (side, side))[::-1], axis=1)
        where = (found + 0.5) / SUBCELLS * TOKEN - 1.5 * TOKEN
        assert np.abs(where - (places - centres)).max() < 1.5 * TOKEN / SUBCELLS


class Light:
    """The flux in each sub-cell of a token."""

    def encode(self, flux, noise, mask=None, *, survey, bands):
        tall, wide = grid_of(flux, survey)
        each = flux.shape[-1] // (wide * SUBCELLS)
        shape = len(flux), tall, SUBCELLS, each, wide, SUBCELLS, each
        tokens = np.nan_to_num(flux).sum(axis=1).reshape(shape).sum(axis=(3, 6))
        moved = tokens.transpose(0, 2, 4, 1, 3)
        return moved.reshape(len(flux), SUBCELLS**2, *moved.shape[-2:]).astype(np.float32)


@pytest.fixture(scope="module")
def oracle(sky):
    """Rows of an encoder that knows every position."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        return position(sky, ENCODERS, SETTINGS)


def test_an_oracle_reaches_its_error_everywhere(oracle):
    found = {(row["survey"], row["readout"], row["snr"]): row for row in oracle}
    across = ("sharp>wide", "wide>sharp")
    kinds = [(survey, "tokens") for survey in ("sharp", "wide", "both", *across)]
    kinds += [(survey, "agreed") for survey in across]
    assert set(found) == {(*kind, snr) for kind in kinds for snr in BOUND}
    for (survey, _, snr), row in found.items():
        # Two independent looks are better than one.
        expected = BOUND[snr] * (1 / np.sqrt(2) if survey == "both" else 1)
        assert row["median_mas"] == pytest.approx(expected, rel=0.2)
        assert row["median_mas_low"] < row["median_mas"] < row["median_mas_high"]
        assert row["bound_mas"] == BOUND[snr]
        assert row["psf_fit_mas"] == pytest.approx(BOUND[snr], rel=0.2)
        assert row["centroid_mas"] == pytest.approx(1.5 * BOUND[snr], rel=0.2)
        assert row["n"] == A_LEVEL // 2
        assert row["underpowered"]
        assert row["claim"]
        for control in ("random", "blank", "shuffled"):
            assert row[f"{control}_mas"] > 0.9 * row["constant_mas"]


def test_the_constant_answer_is_that_of_a_uniform_offset(oracle):
    (row, *_) = oracle
    assert row["constant_mas"] == pytest.approx(0.5 * TOKEN * 1000 / 0.6745, rel=0.1)


@pytest.mark.parametrize(
    "encoder", [Constant(), Position(), Noise()], ids=lambda e: type(e).__name__
)
def test_encoders_that_know_nothing_are_at_chance(sky, encoder):
    encoders = {"model": encoder, "random": encoder, "blank": encoder}
    for row in position(sky, encoders, SETTINGS):
        assert row["median_mas"] > 0.9 * row["constant_mas"]


def test_a_survey_displaced_by_a_token_shows_across(sky, monkeypatch):
    plant(monkeypatch, wrong_survey="wide")
    rows = position(sky, ENCODERS, SETTINGS)
    found = {row["survey"]: row for row in rows if (row["readout"], row["snr"]) == ("tokens", 100)}
    assert abs(found["sharp>wide"]["bias_x_mas"]) == pytest.approx(TOKEN * 1000, rel=0.1)
    assert abs(found["sharp>wide"]["bias_y_mas"]) < 0.05 * TOKEN * 1000
    # Within a survey a readout takes a constant displacement for its own.
    assert abs(found["wide"]["bias_x_mas"]) < 0.05 * TOKEN * 1000


def test_what_one_survey_alone_tells_is_left_out_of_a_readout_that_both_agree_on(sky, monkeypatch):
    plant(monkeypatch, trap_survey="sharp")
    rows = {
        (row["survey"], row["readout"]): row
        for row in position(sky, ENCODERS, SETTINGS)
        if row["snr"] == 10
    }
    assert rows["sharp", "tokens"]["median_mas"] < 0.5 * BOUND[10]
    assert rows["sharp>wide", "tokens"]["median_mas"] > 10 * BOUND[10]
    agreed = rows["sharp>wide", "agreed"]
    assert agreed["median_mas"] == pytest.approx(BOUND[10], rel=0.3)
    assert abs(agreed["bias_x_mas"]) < 0.3 * BOUND[10]
    for control in ("random", "blank", "shuffled"):
        assert agreed[f"{control}_mas"] > 0.9 * agreed["constant_mas"]


def test_little_to_be_known_carries_no_claim(sky, monkeypatch):
    plant(monkeypatch)
    coarse = sky.sources.copy()
    for survey in ("sharp", "wide", "both"):
        coarse[f"bound_mas_{survey}"] *= 20
    rows = position(InjectedSky("empty", sky.store, coarse), ENCODERS, SETTINGS)
    assert {(row["snr"], row["claim"]) for row in rows} == {(10.0, False), (100.0, True)}


def unchanged_by_bands(whole, seen):
    """Tokens of a part of the sources that are the same whatever bands are shown."""

    def tokens_without(sky, survey, encoders, tokens, edge_tokens):
        own = np.isin(whole.column("x"), sky.column("x"))
        found = {name: seen[survey][name]["tokens"][own] for name in withheld_position.LOOKING}
        return dict.fromkeys(sky.store.bands(survey), found)

    return tokens_without


def test_what_both_surveys_know_is_worth_more_than_either(sky, monkeypatch):
    plant(monkeypatch)
    seen = module.seen_of(sky, ENCODERS, SETTINGS)
    bands = {survey: sky.store.bands(survey) for survey in SURVEYS}
    monkeypatch.setattr(withheld_position, "tokens_without", unchanged_by_bands(sky, seen))
    fitted = module.fit_readouts(module.asked_of(sky, seen, SETTINGS), SETTINGS)
    figures = position_figures(sky, seen, ENCODERS, fitted, SETTINGS)
    rows = [row for row in withheld(figures, bands, SETTINGS) if row["withheld"] in SURVEYS]
    assert {(row["figure"], row["withheld"]) for row in rows} == {
        (f"position median_mas S/N {snr:g}", survey) for snr in BOUND for survey in SURVEYS
    }
    for row in rows:
        # Of two independent looks of one quality one is left.
        assert row["value"] == pytest.approx(np.sqrt(2) * row["complete"], rel=0.2)
        assert 0 < row["loss_low"] < row["loss"] < row["loss_high"]
        assert abs(row["random_loss"]) < 0.1 * row["random_value"]


def test_a_band_that_nobody_looked_at_is_no_loss(sky, monkeypatch):
    """Of `wide`, which has two bands, the planted tokens come from neither."""
    plant(monkeypatch)
    seen = module.seen_of(sky, ENCODERS, SETTINGS)
    bands = {survey: sky.store.bands(survey) for survey in SURVEYS}

    monkeypatch.setattr(withheld_position, "tokens_without", unchanged_by_bands(sky, seen))
    fitted = module.fit_readouts(module.asked_of(sky, seen, SETTINGS), SETTINGS)
    figures = position_figures(sky, seen, ENCODERS, fitted, SETTINGS)
    rows = [row for row in withheld(figures, bands, SETTINGS) if row["withheld"] not in SURVEYS]
    assert {row["withheld"] for row in rows} == {"g", "i"}
    assert len(rows) == 2 * len(BOUND)
    for row in rows:
        # Sums over other numbers of threads differ in their last digits.
        assert row["loss"] == pytest.approx(0, abs=1e-4 * row["value"])
        assert 0 < row["n"] < A_LEVEL // 2  # of ten patches
