"""Probes on features whose relation to the targets is known."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaisp.evaluate.folds import folds
from jaisp.evaluate.probe import fit_best, fit_probe
from jaisp.evaluate.readout import Readout
from jaisp.evaluate.ridge import STRENGTHS
from jaisp.evaluate.scatter import r2, r2_interval, scatter, scatter_interval


def features_and_targets(n=1200, features=40, noise=0.3, seed=0):
    """Two targets linear in the features, one that has nothing to do with them, one constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) * 10 ** rng.uniform(-2, 2, features) + 5
    clean = (x - 5) / x.std(axis=0) @ rng.normal(size=(features, 2)) / np.sqrt(features)
    y = np.column_stack([clean + noise * rng.normal(size=(n, 2)), rng.normal(size=n), np.ones(n)])
    return x, y


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_linear_relation_is_learned_and_none_is_not_invented(kind):
    x, y = features_and_targets()
    probe = fit_probe(kind, x[:800], y[:800], seed=1)
    found = probe.predict(x[800:])
    assert found.shape == (400, 4)
    for column in (0, 1):
        ideal = 1 - 0.3**2 / y[800:, column].var()
        assert ideal - 0.1 < r2(y[800:, column], found[:, column]) < ideal + 0.05
    assert -0.15 < r2(y[800:, 2], found[:, 2]) < 0.1
    assert (found[:, 3] == 1).all()


def test_only_the_perceptron_bends():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4))
    y = (x[:, :1] * x[:, 1:2]) + 0.1 * rng.normal(size=(3000, 1))
    linear, bent = (
        r2(y[2000:, 0], fit_probe(kind, x[:2000], y[:2000], seed=0).predict(x[2000:])[:, 0])
        for kind in ("linear", "mlp")
    )
    assert linear < 0.1
    assert bent > 0.8


@pytest.mark.parametrize("features", [20, 700])
def test_ridge_is_that_of_scikit_learn(features, monkeypatch):
    x, y = features_and_targets(n=300, features=features)
    monkeypatch.setattr("jaisp.evaluate.ridge.STRENGTHS", np.array([0.1]))
    found = fit_probe("linear", x[:200], y[:200], seed=0).predict(x[200:])
    mean, scale = x[:200].mean(axis=0), x[:200].std(axis=0)
    theirs = Ridge(alpha=0.1 * 200).fit((x[:200] - mean) / scale, y[:200])
    assert found == pytest.approx(theirs.predict((x[200:] - mean) / scale), abs=1e-6)


def test_the_strength_suits_the_features():
    """Far more features than sources: unregularised, nothing would be left."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(400, 1))
    x = np.hstack([signal + 0.5 * rng.normal(size=(400, 10)), rng.normal(size=(400, 900))])
    found = fit_probe("linear", x[:200], signal[:200], seed=0).predict(x[200:])
    assert r2(signal[200:, 0], found[:, 0]) > 0.4
    assert STRENGTHS[0] < 1e-5 < 1e3 < STRENGTHS[-1]


def test_groups_stay_whole_and_parts_are_even():
    groups = np.random.default_rng(0).integers(0, 30, 600)
    part = folds(600, 3, 0, groups)
    assert all(len(np.unique(part[groups == g])) == 1 for g in range(30))
    assert (np.abs(np.bincount(part) - 200) < 25).all()
    assert (np.bincount(folds(601, 3, 0)) >= 200).all()
    assert set(folds(9, 3, 0, np.zeros(9, int))) == {0, 1, 2}


def test_what_only_the_patch_tells_is_not_trusted():
    """Targets shared by a patch, features that name the patch: useless on another patch."""
    rng = np.random.default_rng(0)
    patch = np.repeat(np.arange(30), 20)
    x = rng.normal(size=(31, 60))[patch] + 0.01 * rng.normal(size=(600, 60))
    y = rng.normal(size=31)[patch][:, None]
    assert np.ptp(fit_probe("linear", x, y, seed=0).predict(x)) > 1
    honest = fit_probe("linear", x, y, seed=0, groups=patch)
    assert np.std(honest.predict(x)) < 0.5


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_same_seed_same_probe(kind):
    x, y = features_and_targets(n=200)
    first, again = (fit_probe(kind, x, y, seed=3).predict(x) for _ in range(2))
    assert (first == again).all()


def test_too_few_sources_are_refused():
    with pytest.raises(ValueError, match="too few"):
        fit_probe("linear", np.ones((1, 3)), np.ones((1, 1)), seed=0)


def test_constant_features_predict_the_mean():
    y = np.arange(50.0)[:, None]
    constant = np.full((50, 8), 1 / 3)
    assert fit_probe("linear", constant, y, seed=0).predict(constant) == pytest.approx(24.5)


def test_figures_and_their_intervals():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=2000)
    predicted = truth + 0.5 * rng.normal(size=2000)
    units = np.arange(2000) // 20
    assert r2(truth, predicted) == pytest.approx(0.75, abs=0.03)
    low, high = r2_interval(truth, predicted, units, 500, 0)
    assert low < r2(truth, predicted) < high
    assert high - low < 0.1
    assert scatter(predicted - truth) == pytest.approx(0.5, rel=0.05)
    low, high = scatter_interval(predicted - truth, units, 200, 0)
    assert low < 0.5 < high
    assert r2(truth, np.full(2000, truth.mean() + 0.1)) < 0
    assert np.isnan(r2(np.ones(3), np.ones(3)))
    assert np.isnan(r2_interval(truth[:1], truth[:1], units[:1], 100, 0)).all()


def test_of_each_target_the_better_form_on_the_sources_that_have_it():
    """One straight relation, one bent, one unrelated; each known for some sources only."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 6))
    y = np.column_stack([x[:, 0], x[:, 1] * x[:, 2], rng.normal(size=3000)])
    y += 0.1 * rng.normal(size=y.shape)
    hidden = rng.uniform(size=y.shape) < 0.4
    fitted = np.where(hidden, np.nan, y)[:2000]
    probe = fit_best(x[:2000], fitted, seed=0, groups=np.arange(2000) // 20)
    found = probe.predict(x[2000:])
    linear, perceptron = probe.weights
    assert perceptron[0] < 0.5 < perceptron[1]
    assert np.allclose(linear + perceptron, 1)
    for column, least, most in ((0, 0.98, 1), (1, 0.85, 1), (2, -0.05, 0.02)):
        assert least < r2(y[2000:, column], found[:, column]) < most


def test_a_target_of_no_source_is_not_answered():
    x, y = features_and_targets(n=200)
    y[:, 1] = np.nan
    found = fit_best(x, y, seed=0, groups=np.arange(200), kinds=("linear",)).predict(x)
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[:, [0, 2, 3]]).all()


def test_leading_components_are_trusted_most():
    """A signal in the strongest of many components, most of them noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 150)) * np.geomspace(10, 0.1, 150)
    y = x[:, :1] + 3 * rng.normal(size=(400, 1))
    each, together = (
        fit_probe("linear", x[:200], y[:200], seed=0, together=t).predict(x[200:])
        for t in (False, True)
    )
    assert r2(y[200:, 0], together[:, 0]) > r2(y[200:, 0], each[:, 0]) + 0.02


def test_an_interval_of_the_scatter_is_that_of_resampled_medians():
    rng = np.random.default_rng(0)
    residual, units = rng.normal(size=400), np.repeat(np.arange(40), 10)
    drawn = rng.integers(40, size=(2000, 40))
    medians = [
        scatter(np.concatenate([residual[10 * u : 10 * u + 10] for u in draw])) for draw in drawn
    ]
    expected = np.percentile(medians, (2.5, 97.5))
    assert scatter_interval(residual, units, 2000, 1) == pytest.approx(expected, rel=0.03)


def test_few_sources_are_read_off_one_token_and_many_off_all():
    """What the tokens around add is worth its numbers only where there are sources to learn it."""
    rng = np.random.default_rng(3)
    dimensions, places = 60, 9
    own = slice(places // 2, None, places)
    weights = np.zeros((dimensions * places, 2))
    weights[own] = rng.normal(size=(dimensions, 2))
    weights[places // 2 + 1 :: places] = 0.2 * rng.normal(size=(dimensions, 2))

    def sources(count):
        features = rng.normal(size=(count, dimensions * places)).astype(np.float32)
        snr, units = np.full(count, 30.0), np.arange(count) % 40
        return features, features @ weights + 0.1 * rng.normal(size=(count, 2)), snr, units

    test, truth, snr, _ = sources(500)
    for count, expected in ((200, "one token"), (6000, "linear")):
        readout = Readout(*sources(count), 1, ("linear", "one token"), own)
        assert readout.chosen == {30.0: expected}
        assert r2(truth[:, 0], readout.predict(test, snr)[:, 0]) > 0.5
