"""Metrics as tables and as words: controls stand beside figures, and nothing is overclaimed."""

import pytest

from jaisp.report.summary import findings, verdict
from jaisp.report.tables import figure, metric_groups

RETRIEVAL = {
    "field": "demo", "token_arcsec": 1.6, "query": "rubin", "target": "euclid", "tokens": "source",
    "scope": "field", "candidates": 400, "snr_min": 5.0, "n": 400, "top1": 0.62, "top1_low": 0.58,
    "top1_high": 0.66, "shuffled_top1": 0.002, "random_top1": 0.1, "pixels_top1": 0.2,
    "interval_unit": "patch", "underpowered": False,
}  # fmt: skip
POSITION = {
    "survey": "rubin", "snr": 30, "readout": "tokens", "n": 500, "median_mas": 20.0,
    "median_mas_low": 18.0, "median_mas_high": 22.0, "psf_fit_mas": 8.0, "random_mas": 200.0,
    "constant_mas": 460.0,
}  # fmt: skip


def found(**groups):
    return findings({"groups": groups})


def test_controls_stand_beside_figures():
    other = RETRIEVAL | {"query": "euclid", "target": "rubin", "top1": 0.5}
    metrics = {"groups": {"retrieval": [RETRIEVAL, other]}, "skipped": {"transfer": "no truth"}}
    retrieval, skipped = metric_groups(metrics)
    (table,) = retrieval.tables
    kinds = [column.kind for column in table.columns]
    assert kinds == sorted(kinds, key=["setting", "figure", "control"].index)
    labels = [column.label for column in table.columns]
    assert labels[-3:] == ["shuffled top 1, %", "random top 1, %", "pixels top 1, %"]
    top1 = table.rows[0][labels.index("top 1, %")]
    assert (top1.text, top1.interval) == ("62.0", "[58.0, 66.0]")
    assert "S/N min 5" in table.caption
    assert "resampled by patch" in table.caption
    assert sum(count for _, count in table.spans) == len(labels)
    assert skipped.skipped == "no truth"


def test_rows_of_other_columns_get_their_own_table():
    rows = [{"survey": "a", "n": 9, "rankme": 3.0}, {"survey": "a+b", "n": 9, "shared": 1.0}]
    (group,) = metric_groups({"groups": {"collapse": rows}})
    assert [len(table.rows) for table in group.tables] == [1, 1]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("top1", 0.123, "12.3"),
        ("median_mas", 20, "20.0"),
        ("dx_arcsec", -0.00512, "\u22120.0051"),
        ("n", 12345, "12\u202f345"),
        ("r2", 0.912, "0.91"),
        ("smallest_std", 3.2e-05, "3.2e-05"),
        ("separation", None, "–"),
        ("survey", "rubin", "rubin"),
    ],
)
def test_numbers_are_printed_alike(key, value, text):
    assert figure({key: value}, key).text == text


def test_too_few_is_marked():
    (group,) = metric_groups({"groups": {"retrieval": [RETRIEVAL | {"underpowered": True}]}})
    assert any(value.text == "400 †" for value in group.tables[0].rows[0])
    (finding,) = found(retrieval=[RETRIEVAL | {"underpowered": True}])
    assert finding.good is None
    assert "too few" in verdict([finding])


def test_the_weakest_direction_speaks():
    weak = RETRIEVAL | {"query": "euclid", "target": "rubin", "top1": 0.3, "top1_low": 0.25}
    (finding,) = found(retrieval=[RETRIEVAL, weak])
    assert finding.value == "30.0\u00a0%"
    assert finding.good is True
    assert "an untrained encoder 10.0\u00a0%" in finding.detail


def test_an_interval_that_reaches_a_control_is_no_success():
    (finding,) = found(retrieval=[RETRIEVAL | {"top1_low": 0.19}])
    assert finding.good is False
    assert "not beyond raw pixels" in verdict([finding])


def test_position_must_beat_the_constant_answer():
    (good,) = found(position=[POSITION])
    assert good.good is True
    assert "PSF fit 8.0\u00a0mas" in good.detail
    (bad,) = found(position=[POSITION | {"median_mas_high": 470.0}])
    assert bad.good is False


def test_nothing_measured_is_said():
    assert findings({}) == []
    assert "no figure that could be judged" in verdict([])
