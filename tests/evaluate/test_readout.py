"""Readouts of positions: what few sources, wrong ones, or two surveys side by side do to them."""

import numpy as np
import pytest

from jaisp.evaluate import clipped
from jaisp.evaluate.clipped import fit_clipped
from jaisp.evaluate.probe import fit_probe
from jaisp.evaluate.readout import LINEAR, ONE_TOKEN, PEAK_DIMENSIONS, STACKED, Readout
from jaisp.evaluate.scatter import scatter
from jaisp.model.trunk import kept_dimensions

WIDTH = 40


def tokens_of(offset: np.ndarray, error: float, seed: int) -> np.ndarray:
    """Features [source, WIDTH] that tell an offset but for an error in mas."""
    rng = np.random.default_rng(seed)
    told = offset + error * rng.normal(size=offset.shape)
    found = told @ rng.normal(size=(2, WIDTH)) + 20 * rng.normal(size=(len(offset), WIDTH))
    return found.astype(np.float32)


def offsets_of(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-800, 800, (count, 2))


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_sources_that_are_told_wrong_lead_nobody_astray(share):
    """A share of the sources has the tokens of a neighbour half a token away."""
    rng = np.random.default_rng(2)
    offset, units = offsets_of(1200, 1), np.repeat(np.arange(60), 20)
    wrong = rng.random(len(offset)) < share
    shown = offset + wrong[:, None] * rng.uniform(-600, 600, offset.shape)
    features, train = tokens_of(shown, 5, 3), np.arange(len(offset)) < 800
    own, right = (features[train], offset[train], 1, units[train]), train & ~wrong
    clean = fit_probe("linear", features[right], offset[right], 1, units[right])
    probe, told = fit_clipped(*own)
    test = ~train & ~wrong
    best = scatter((clean.predict(features[test]) - offset[test]).ravel())
    found = scatter((probe.predict(features[test]) - offset[test]).ravel())
    assert found == pytest.approx(best, rel=0.1)
    assert scatter((told - offset[train])[~wrong[train]].ravel()) == pytest.approx(best, rel=0.2)
    if share:
        plain = fit_probe("linear", *own)
        assert scatter((plain.predict(features[test]) - offset[test]).ravel()) > 1.5 * best


def test_two_surveys_together_are_as_good_as_the_better_one_though_sources_are_few():
    offset, units = offsets_of(700, 4), np.repeat(np.arange(35), 20)
    sharp, poor = tokens_of(offset, 5, 5), tokens_of(offset, 60, 6)
    both, train = np.concatenate([sharp, poor], axis=1), np.arange(len(offset)) < 120
    snr = np.full(len(offset), 10.0)

    def error(features: np.ndarray, kind: str, surveys: int) -> float:
        own = features[train], offset[train], snr[train], units[train]
        readout = Readout(*own, seed=1, kinds=(kind,), own=slice(0, None, 2), surveys=surveys)
        assert readout.chosen == {10.0: kind}
        return scatter((readout.predict(features[~train], snr[~train]) - offset[~train]).ravel())

    alone, stacked = error(sharp, LINEAR, 1), error(both, STACKED, 2)
    assert stacked < 1.05 * alone
    assert stacked < 0.95 * error(both, LINEAR, 1)


@pytest.mark.parametrize("best", [ONE_TOKEN, LINEAR])
def test_the_form_is_taken_that_tells_most_of_sky_it_was_not_fitted_on(best):
    """The own token tells an offset to 30 mas; around it is noise, or a token that tells to 5."""
    offset, units = offsets_of(150, 7), np.repeat(np.arange(15), 10)
    noise = 300 * np.random.default_rng(8).normal(size=(len(offset), 300)).astype(np.float32)
    around = tokens_of(offset, 5, 9) if best == LINEAR else noise
    features = np.concatenate([tokens_of(offset, 30, 10), around], axis=1)
    snr, kinds = np.full(len(offset), 10.0), (LINEAR, ONE_TOKEN)
    for seed in range(3):
        readout = Readout(features, offset, snr, units, seed, kinds, own=slice(0, WIDTH))
        assert readout.chosen == {10.0: best}


@pytest.mark.parametrize("surveys", [1, 2])
def test_few_dimensions_that_hold_peaks_are_read_by_themselves(surveys):
    """A token tells an offset by its last dimensions; all others are noise, and many."""
    offset, units = offsets_of(240, 11), np.repeat(np.arange(24), 10)
    rng, snr = np.random.default_rng(12), np.full(240, 10.0)
    tokens = []
    for _ in range(surveys):
        told = offset + 30 * rng.normal(size=offset.shape)
        few = kept_dimensions(120)
        peaks = told @ rng.normal(size=(2, few)) + rng.normal(size=(240, few))
        tokens += [300 * rng.normal(size=(240, 120 - few)), peaks]
    features, train = np.concatenate(tokens, axis=1).astype(np.float32), np.arange(240) < 160
    kinds = (LINEAR, ONE_TOKEN, PEAK_DIMENSIONS)
    own = features[train], offset[train], snr[train], units[train]
    readout = Readout(*own, seed=1, kinds=kinds, surveys=surveys)
    assert readout.chosen == {10.0: PEAK_DIMENSIONS}
    error = scatter((readout.predict(features[~train], snr[~train]) - offset[~train]).ravel())
    assert error == pytest.approx(30 / np.sqrt(surveys), rel=0.25)


def test_what_forms_have_in_common_is_fitted_once(monkeypatch):
    """Of one survey, what is stacked are the very regressions of other forms."""
    given = []

    def counted(*known):
        given.append(known[0].shape)
        return fit_clipped(*known)

    monkeypatch.setattr(clipped, "fit_clipped", counted)
    offset, units = offsets_of(300, 1), np.repeat(np.arange(30), 10)
    features, snr = tokens_of(offset, 5, 2), np.full(300, 10.0)
    kinds = (LINEAR, PEAK_DIMENSIONS, STACKED)
    readout = Readout(features, offset, snr, units, 1, kinds, slice(0, None, 2))
    parts = 3 * 3  # of each third of the sky: two forms, and how their answers are weighed
    assert len(given) == parts + {LINEAR: 1, PEAK_DIMENSIONS: 1, STACKED: 3}[readout.chosen[10.0]]
