"""One source or two: planted tokens of known worth, and encoders that know nothing."""

import numpy as np
import pytest
from astropy.table import Table

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate import deblending as module
from jaisp.evaluate import withheld_deblending
from jaisp.evaluate.deblending import (
    SEPARATIONS_ARCSEC,
    blends_of,
    deblending,
    fit_scorers,
    pairs_seen,
)
from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.withheld import withheld
from jaisp.evaluate.withheld_deblending import deblending_figure
from tests.evaluate.skies import TOKEN, Constant, Noise, Position, publish_sky, sky_config

SETTINGS = EvaluateConfig(resamples=100, edge_tokens=2)
ENCODERS = {"model": Constant(), "random": Noise(), "blank": Constant()}
COUNT = 2000
RESOLVED = 0.9  # arcsec: what the peak finder of these tests tells apart


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> InjectedSky:
    """Half of the sources are pairs; their pixels show none of it, their tokens are planted."""
    rng = np.random.default_rng(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("pairs"))
        store = publish_sky(sky_config(side_arcsec=153.6), per_arcmin2=12)
    half = store.patch_arcsec / 2 - 2 * TOKEN
    row = rng.integers(len(store), size=COUNT)
    two = np.arange(COUNT) % 2 == 1
    separation = np.where(two, rng.uniform(0.3, 1.5, COUNT), 0)
    columns = {
        "cell": ["field"] * COUNT,
        "row": row,
        "x": store.index.x[row] + rng.uniform(-half, half, COUNT),
        "y": store.index.y[row] + rng.uniform(-half, half, COUNT),
        "split": np.array(["train", "test"])[np.arange(COUNT) // 2 % 2],
        "snr": rng.choice([30.0, 100.0], COUNT),
        "kind": ["each"] * COUNT,
        "components": 1 + two,
        "separation_arcsec": separation,
        "flux_share": np.where(two, rng.uniform(0.1, 0.5, COUNT), 0),
        "peaks_sharp": 1 + (separation > RESOLVED),
        "peaks_wide": np.ones(COUNT, int),
    }
    return InjectedSky("pairs", store, Table(columns))


@pytest.fixture(scope="module")
def known(pairs):
    """Rows of tokens that know the separation and the share, for all S/N together and for each."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, separation_and_share)
        return deblending(pairs, ENCODERS, SETTINGS)


def plant(monkeypatch, knows):
    """Features that are a projection of what `knows` makes of the separation and the share."""

    def planted(sky, survey, encoders, tokens, edge_tokens, readouts):
        rng = np.random.default_rng(list(survey.encode()))
        known = knows(sky, survey, rng)
        seen = known @ np.random.default_rng(3).normal(size=(known.shape[1], 20))
        nothing = rng.normal(size=seen.shape)
        own = {"model": seen, "random": nothing, "blank": 0 * nothing}
        return {name: {"tokens": own[name].astype(np.float32)} for name in encoders}

    monkeypatch.setattr(module, "features", planted)


def separation_and_share(sky, survey, rng):
    """The separation's excess over .3″, with an error of .3″; the share, with one of .05."""
    excess = np.where(sky.column("components") == 2, sky.column("separation_arcsec") - 0.3, 0.0)
    error = {"sharp": 0.3, "wide": 3.0}[survey]
    share = sky.column("flux_share") + rng.normal(0, 0.05, len(excess))
    return np.stack([excess + rng.normal(0, error, len(excess)), share], axis=1)


def only_separation(sky, survey, rng):
    return separation_and_share(sky, survey, rng)[:, :1]


def test_every_survey_has_a_row_a_separation(known):
    found = {(row["survey"], row["snr"], row["separation_low_arcsec"]) for row in known}
    assert found == {
        (survey, snr, low)
        for survey in ("sharp", "wide", "both")
        for snr in (None, 30.0, 100.0)
        for low in SEPARATIONS_ARCSEC[:-1]
    }
    for row in known:
        assert row["separation_low_arcsec"] < row["separation_arcsec"]
        assert row["n"] > row["pairs"] > 20
        assert row["underpowered"]


def test_an_oracle_tells_what_its_tokens_tell(pairs, monkeypatch):
    plant(monkeypatch, only_separation)
    rows = [row for row in deblending(pairs, ENCODERS, SETTINGS) if row["snr"] is None]
    sharp, wide, both = (
        [row for row in rows if row["survey"] == survey] for survey in ("sharp", "wide", "both")
    )
    assert [row["auc"] for row in sharp] == sorted(row["auc"] for row in sharp)
    # Pairs of .3–.6″ lie .15″ and more from single sources, .5 σ of the tokens: Φ(.5 / √2).
    assert sharp[0]["auc"] == pytest.approx(0.64, abs=0.07)
    assert sharp[-1]["auc"] > 0.97
    assert sharp[-1]["accuracy"] > 0.85
    assert max(row["auc"] for row in wide) < 0.7
    for own, together in zip(sharp, both, strict=True):
        assert together["auc"] > own["auc"] - 0.05
        assert own["auc_low"] <= own["auc"] <= own["auc_high"]
        assert own["accuracy_low"] <= own["accuracy"] <= own["accuracy_high"]
    # The peak finder of the sharp survey sees all pairs beyond .9″, and no other; together, the
    # surveys see what either sees.
    for rows_of in (sharp, both):
        assert [row["peaks_accuracy"] for row in rows_of] == [0.5, 0.5, 1, 1]
    assert {row["peaks_accuracy"] for row in wide} == {0.5}


def test_the_fainter_share_is_read_off(known):
    for row in known:
        if row["survey"] == "sharp" and row["snr"] is None:
            assert row["share_scatter"] == pytest.approx(0.05, rel=0.3)
            assert row["share_scatter_low"] < row["share_scatter"] < row["share_scatter_high"]
            # Uniform from .1 to .5: half of them within .1 of the middle.
            assert row["constant_share_scatter"] == pytest.approx(0.1 / 0.6745, rel=0.2)
            assert row["random_share_scatter"] > 0.85 * row["constant_share_scatter"]


def test_controls_are_at_chance(known):
    for row in known:
        if row["snr"] is None:
            for control in ("random", "blank", "shuffled"):
                assert row[f"{control}_auc"] == pytest.approx(0.5, abs=0.1)
                assert row[f"{control}_accuracy"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("encoder", [Position(), Noise()], ids=lambda e: type(e).__name__)
def test_encoders_that_know_nothing_are_at_chance(pairs, encoder):
    for row in deblending(pairs, {"model": encoder}, SETTINGS):
        if row["snr"] is None:
            assert row["auc"] == pytest.approx(0.5, abs=0.1)
            assert row["share_scatter"] > 0.85 * row["constant_share_scatter"]


def test_a_token_away_nothing_is_seen(pairs, monkeypatch):
    """Tokens that belong to another source of the same kind, or of the other."""
    step = np.random.default_rng(1).permutation(COUNT)
    plant(monkeypatch, lambda *args: separation_and_share(*args)[step])
    for row in deblending(pairs, {"model": Constant()}, SETTINGS):
        if row["snr"] is None:
            assert row["auc"] == pytest.approx(0.5, abs=0.1)
            assert row["share_scatter"] > 0.8 * row["constant_share_scatter"]


def losses(pairs, seen, without, monkeypatch):
    """Rows of what is withheld, by its name; without: what is seen in place of `seen`, by band."""

    def tokens_without(sky, survey, encoders, tokens, edge_tokens):
        chosen = np.isin(pairs.column("x"), sky.column("x"))
        bands = sky.store.bands(survey)
        return {
            band: {
                name: values["tokens"][chosen]
                for name, values in without.get(band, seen)[survey].items()
                if name in withheld_deblending.LOOKING
            }
            for band in (bands if len(bands) > 1 else ())
        }

    monkeypatch.setattr(withheld_deblending, "tokens_without", tokens_without)
    fitted = fit_scorers(blends_of(pairs, seen), SETTINGS)
    bands = {survey: pairs.store.bands(survey) for survey in pairs.store.surveys}
    figure = deblending_figure(pairs, seen, fitted, ENCODERS, SETTINGS)
    return {row["withheld"]: row for row in withheld([figure], bands, SETTINGS)}


def test_the_band_and_the_survey_that_tell_two_from_one_are_missed(pairs, monkeypatch):
    plant(monkeypatch, only_separation)
    seen = pairs_seen(pairs, ENCODERS, SETTINGS)
    plant(monkeypatch, lambda sky, survey, rng: 0 * only_separation(sky, survey, rng))
    nothing = pairs_seen(pairs, ENCODERS, SETTINGS)
    # `wide` looks in i alone, at what the error of 3″ leaves of it.
    rows = losses(pairs, seen, {"i": nothing}, monkeypatch)
    assert set(rows) == {"sharp", "wide", "g", "i"}
    assert rows["sharp"]["loss_low"] > 0.1
    assert abs(rows["wide"]["loss"]) < 0.05
    assert abs(rows["g"]["loss"]) < 0.02
    assert abs(rows["i"]["loss"]) < 0.05
    assert rows["g"]["n"] < rows["sharp"]["n"] == COUNT // 2
    for row in rows.values():
        assert row["figure"] == "deblending auc"
        assert row["complete"] > 0.8
        for control in ("random", "shuffled"):
            assert row[f"{control}_complete"] == pytest.approx(0.5, abs=0.1)
            assert abs(row[f"{control}_loss"]) < 0.1


def test_without_the_band_that_shows_two_they_are_taken_for_one(pairs, monkeypatch):
    swap = {"sharp": "wide", "wide": "sharp"}
    plant(monkeypatch, lambda sky, survey, rng: only_separation(sky, swap[survey], rng))
    seen = pairs_seen(pairs, ENCODERS, SETTINGS)
    plant(monkeypatch, lambda sky, survey, rng: 0 * only_separation(sky, survey, rng))
    rows = losses(pairs, seen, {"i": pairs_seen(pairs, ENCODERS, SETTINGS)}, monkeypatch)
    assert rows["i"]["loss_low"] > 0.1
    assert abs(rows["g"]["loss"]) < 0.02
