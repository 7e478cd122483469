"""Figures of resamples, all at once, are those of the sources drawn one by one."""

import numpy as np
import pytest

from jaisp.evaluate.statistic import (
    drawn_figures,
    drawn_interval,
    draws,
    figure_of,
    pearson_sums,
)

COUNT = 301


@pytest.fixture(scope="module")
def drawn_one_by_one():
    """Units of sources, some resamples of them, and the sources of each resample."""
    rng = np.random.default_rng(1)
    units = rng.integers(12, size=COUNT)
    drawn = draws(units, 40, seed=2)
    return units, drawn, [np.repeat(np.arange(COUNT), counts[units]) for counts in drawn]


def values_of(statistic):
    rng = np.random.default_rng(3)
    first = rng.normal(size=COUNT)
    if statistic == "auc":
        high = rng.uniform(size=COUNT) < 0.4
        return np.stack([np.round(first + high, 1), high], axis=1)
    if statistic == "pearson":
        truth = rng.normal(1, 1, (COUNT, 4, 4))
        return pearson_sums(truth, truth + rng.normal(size=truth.shape))
    return np.stack([first, first + rng.normal(size=COUNT)], axis=1)


@pytest.mark.parametrize("statistic", ["mean", "scatter", "r2", "pearson", "auc"])
def test_resamples_are_figures_of_the_sources_drawn(drawn_one_by_one, statistic):
    units, drawn, sources = drawn_one_by_one
    values = values_of(statistic)
    found = drawn_figures(statistic, values, units, drawn)
    assert found == pytest.approx([figure_of(statistic, values[own]) for own in sources])


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_the_interval_of_few_errors_holds_their_scatter(count):
    rng = np.random.default_rng(count)
    for seed in range(40):
        values = rng.normal(size=(count, 2)) * 10
        low, high = drawn_interval("scatter", values, np.arange(count), 400, seed)
        assert low <= figure_of("scatter", values) <= high


def test_pearson_is_that_of_all_pixels():
    rng = np.random.default_rng(4)
    truth = rng.normal(3, 1, (50, 4, 4))
    answer = 0.5 * truth + rng.normal(size=truth.shape)
    expected = np.corrcoef(truth.ravel(), answer.ravel())[0, 1]
    assert figure_of("pearson", pearson_sums(truth, answer)) == pytest.approx(expected)
    assert figure_of("pearson", pearson_sums(truth, 0 * answer + 0.3)) == 0


def test_auc_counts_pairs_and_half_of_the_ties():
    values = np.array([[1.0, 1], [0.0, 1], [0.0, 0], [-1.0, 0]])
    assert figure_of("auc", values) == 3.5 / 4
    assert np.isnan(figure_of("auc", values[:2]))


def test_a_resample_of_one_kind_has_no_auc():
    values, units = np.array([[1.0, 1], [0.0, 0]]), np.array([0, 1])
    found = drawn_figures("auc", values, units, np.array([[2, 0], [1, 1]]))
    assert np.isnan(found[0])
    assert found[1] == 1
