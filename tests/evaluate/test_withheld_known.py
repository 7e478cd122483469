"""Fluxes, shapes and images without a band: planted tokens of which each band holds one thing."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.evaluate import withheld_known as module
from jaisp.evaluate.known import known_sky
from jaisp.evaluate.morphology import morphology_regressions, morphology_targets
from jaisp.evaluate.photometry import photometry_regressions, photometry_targets
from jaisp.evaluate.plots.withheld import withheld_plots
from jaisp.evaluate.reconstruction import fit_decoders, images
from jaisp.evaluate.seen import Seen, features_of, own_and_mean
from jaisp.evaluate.withheld import withheld
from jaisp.evaluate.withheld_known import (
    known_without,
    morphology_figures,
    photometry_figures,
    reconstruction_figures,
)
from tests.evaluate import skies
from tests.evaluate.known_skies import FAINT, PER_ARCMIN2, SETTINGS, truth_table
from tests.evaluate.skies import SURVEYS, Constant, Noise, OneBand, publish_sky, sky_config

BANDS = {survey: bands for survey, (bands, _) in SURVEYS.items()}
WIDTH, AROUND = 64, 9


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("withheld"))
        patch.setattr(skies, "NOISE", FAINT)
        store = publish_sky(sky_config(), per_arcmin2=PER_ARCMIN2)
        return known_sky(store, SETTINGS, truth_table(store))


class Unchanged:
    """Components that are the token, which nine have in common."""

    def apply(self, values):
        return values[:, ::AROUND]


def nine(token):
    return np.repeat(token, AROUND, axis=1)


class Planted:
    """Tokens of each survey, of which every band holds some numbers; the controls' are noise."""

    def __init__(self, holds):
        rng = np.random.default_rng(1)
        self._holds = {
            band: np.nan_to_num((values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0))
            for band, values in holds.items()
        }
        self._matrix = {b: rng.normal(size=(v.shape[1], WIDTH)) for b, v in self._holds.items()}
        self._count = len(next(iter(holds.values())))
        self._noise = {s: rng.normal(size=(2, self._count, WIDTH)) for s in SURVEYS}

    def tokens(self, survey, without=None):
        error, nothing = self._noise[survey]
        held = [
            self._holds[survey, band] @ self._matrix[survey, band]
            for band in BANDS[survey]
            if band != without and (survey, band) in self._holds
        ]
        model = 0.1 * error + sum(held)
        found = {"model": model, "random": nothing, "blank": nothing}
        return {name: values.astype(np.float32) for name, values in found.items()}

    def seen(self):
        components = {survey: self.tokens(survey) for survey in SURVEYS}
        reductions = {s: dict.fromkeys(own, Unchanged()) for s, own in components.items()}
        tokens = {
            survey: {name: own_and_mean(nine(values)) for name, values in own.items()}
            for survey, own in components.items()
        }
        return Seen({s: (s, bands) for s, bands in BANDS.items()}, components, reductions, tokens)

    def without(self, monkeypatch, known):
        """Have the same tokens looked at without each of the bands."""
        place = {tuple(token): number for number, token in enumerate(known.tokens.tolist())}

        def tokens_without(sky, survey, encoders, tokens, edge_tokens):
            few = [place[tuple(token)] for token in tokens.tolist()]
            bands = BANDS[survey] if len(BANDS[survey]) > 1 else []
            return {b: {n: nine(v[few]) for n, v in self.tokens(survey, b).items()} for b in bands}

        monkeypatch.setattr(module, "tokens_without", tokens_without)
        return known_without(known, self.seen(), {}, SETTINGS)


def lost(rows, least=0.5, chance=0.05):
    """What is lost of which figure: every loss is large, or none. Controls lose no more than
    `chance` beyond a share of what they have."""
    found = set()
    for row in rows:
        assert row["loss_low"] <= row["loss"] <= row["loss_high"]
        assert abs(row["random_loss"]) < 0.15 * abs(row["random_complete"]) + chance
        assert abs(row["shuffled_loss"]) < 0.15 * abs(row["shuffled_complete"]) + chance
        assert row["underpowered"]
        share = row["loss"] / row["complete"]
        if share > least:
            assert row["loss_low"] > 0
            found.add((row["figure"].split()[-1], row["withheld"]))
        else:
            assert abs(share) < 0.2
    return found


def unlike(known):
    """The same sources with fluxes of their own in every band."""
    rng, table = np.random.default_rng(8), known.sky.sources.copy()
    for survey, band in known.bands:
        table[f"flux_{survey}_{band}"] = 10 ** rng.normal(3, 0.3, len(table))
        table[f"snr_{survey}_{band}"] = 30.0
    return replace(known, sky=replace(known.sky, sources=table))


def test_a_flux_is_lost_with_its_band(known, monkeypatch):
    sky = unlike(known)
    targets = list(photometry_targets(sky))
    holds = {own: np.log10(sky.sky.column("flux_{}_{}".format(*own)))[:, None] for own in sky.bands}
    less = Planted(holds).without(monkeypatch, sky)
    figures = photometry_figures(
        less, targets, photometry_regressions(sky, less.seen, targets, SETTINGS)
    )
    rows = withheld(figures, BANDS, SETTINGS)
    assert len(rows) == 4 * len(targets)
    colour = "wide:g-i"
    assert lost([row for row in rows if not row["figure"].endswith("redshift")]) == {
        ("wide:g", "g"), ("wide:i", "i"), (colour, "g"), (colour, "i"),
        ("sharp:r", "sharp"), ("wide:g", "wide"), ("wide:i", "wide"), (colour, "wide"),
    }  # fmt: skip
    few = {row["n"] for row in rows if row["withheld"] not in SURVEYS}
    all_of_them = {row["n"] for row in rows if row["withheld"] in SURVEYS}
    assert max(few) < min(all_of_them)


def test_a_shape_is_lost_with_what_shows_it(known, monkeypatch):
    truth = morphology_targets(known)
    holds = {("wide", "g"): truth[:, :1], ("wide", "i"): truth[:, 1:]}
    less = Planted(holds).without(monkeypatch, known)
    figures = morphology_figures(less, morphology_regressions(known, less.seen, SETTINGS))
    found = lost(withheld(figures, BANDS, SETTINGS))
    size, *shape = "log_half_light_radius", "e1", "e2"
    assert found == {
        (size, "g"),
        (size, "wide"),
        *((e, own) for e in shape for own in ["i", "wide"]),
    }


def test_an_image_is_lost_with_the_band_that_holds_it(known, monkeypatch):
    pixels = np.nan_to_num(images(known.stamps["sharp"])).reshape(len(known), -1)
    u, s, _ = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)
    less = Planted({("wide", "g"): u[:, :12] * s[:12]}).without(monkeypatch, known)
    figures = reconstruction_figures(less, fit_decoders(known, less.seen, SETTINGS))
    rows = withheld(figures, BANDS, SETTINGS)
    assert {(row["figure"], row["withheld"]) for row in rows} == {
        ("reconstruction r wide>sharp:r", band) for band in BANDS["wide"]
    }
    # Who learned from wrong pairs gives few images to all sources: alike or unlike by chance.
    assert lost(rows, chance=0.3) == {("wide>sharp:r", "g")}
    assert all(abs(row[f"shuffled_{name}"]) < 0.3 for row in rows for name in ("value", "complete"))
    (row,) = (row for row in rows if row["withheld"] == "i")
    assert row["complete"] > 0.3


@pytest.fixture(scope="module")
def measure(known):
    """Measures an encoder, shown everything and each time a band less."""

    def measured(model):
        encoders = {"model": model, "random": Noise(), "blank": Constant()}
        seen = features_of(known, encoders, SETTINGS)
        targets = list(photometry_targets(known))
        less = known_without(known, seen, encoders, SETTINGS)
        figures = [
            *photometry_figures(
                less, targets, photometry_regressions(known, seen, targets, SETTINGS)
            ),
            *morphology_figures(less, morphology_regressions(known, seen, SETTINGS)),
            *reconstruction_figures(less, fit_decoders(known, seen, SETTINGS)),
        ]
        return withheld(figures, BANDS, SETTINGS)

    return measured


@pytest.fixture(scope="module")
def one_band(measure):
    return measure(OneBand("i"))


def test_only_the_band_that_an_encoder_looks_at_is_missed(one_band):
    rows = [row for row in one_band if row["withheld"] in BANDS["wide"]]
    assert {row["figure"].split()[0] for row in rows} == {
        "photometry", "morphology", "reconstruction"
    }  # fmt: skip
    for row in rows:
        if row["withheld"] == "g":
            assert row["loss"] == pytest.approx(0, abs=1e-5 * abs(row["complete"]))
        elif row["figure"].split()[1] == "r" or row["figure"].endswith(("wide:i", "sharp:r")):
            assert row["loss_low"] > 0


def test_who_knows_nothing_has_nothing_to_lose(measure):
    for row in measure(Noise(8)):
        off = 0.1 if row["figure"].startswith("reconstruction") else 0.2 * row["complete"]
        assert abs(row["loss"]) < off + 1e-6


def test_few_figures_are_bars_and_many_a_table(one_band, tmp_path):
    for group, drawn in (("photometry", "bars"), ("morphology", "bars")):
        rows = [row for row in one_band if row["figure"].startswith(group)]
        (plot,) = withheld_plots(group, rows)
        assert plot.name == f"withheld_{group}"
        assert plot.draw.__name__ == f"withheld_{drawn}"
        plot.write(tmp_path)
    many = [{**row, "figure": f"{row['figure']}{k}"} for row in one_band for k in range(2)]
    (plot,) = withheld_plots("photometry", many)
    assert plot.draw.__name__ == "withheld_table"
    assert len(plot.draw(many).axes[0].texts) == len([row for row in many if row["complete"]])
    plot.write(tmp_path)
    assert withheld_plots("photometry", []) == []
