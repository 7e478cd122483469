"""The plots of position, registration and deblending draw what the rows say."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaisp.evaluate.plots.deblending import deblending_accuracy
from jaisp.evaluate.plots.position import position_errors
from jaisp.evaluate.plots.registration import registration_errors
from jaisp.evaluate.plots.transfer import transfer_plots

CONTROLS = ("random", "blank", "shuffled", "constant")


def position_rows():
    for survey in ("rubin", "euclid_q1", "both", "rubin>euclid_q1"):
        for snr in (5.0, 10.0, 30.0, 100.0):
            for readout, worse in (("tokens", 1.6), ("scales", 1.2)):
                bound = 400 / snr
                row = {"survey": survey, "snr": snr, "readout": readout, "bound_mas": bound}
                row |= {"median_mas": worse * bound, "underpowered": snr < 10}
                row |= {"median_mas_low": 1.4 * bound, "median_mas_high": 1.8 * bound}
                row |= {
                    "psf_fit_mas": 1.02 * bound,
                    "centroid_mas": None if snr < 10 else 2 * bound,
                }
                yield row | {f"{control}_mas": 1100.0 for control in CONTROLS}


def registration_rows():
    for pair in (("rubin", "euclid_q1"), ("euclid_q1", "rubin")):
        for shift in (0.0, 50.0, 100.0, 200.0, 500.0):
            error = 5 + shift / 50
            row = {"survey": pair[0], "target": pair[1], "shift_mas": shift, "error_mas": error}
            row |= {"error_mas_low": 0.8 * error, "error_mas_high": 1.3 * error}
            row |= {"phase_correlation_mas": 20.0, "catalogue_mas": 2.0, "shared_mas": 2 * error}
            yield row | {f"{control}_mas": shift for control in CONTROLS}


def deblending_rows():
    for survey in ("rubin", "euclid_q1", "both"):
        for snr in (None, 10.0, 30.0, 100.0):
            for separation in (0.45, 0.75, 1.05, 1.35):
                accuracy = 1 - 0.5 * np.exp(-separation * (snr or 40) / 40)
                row = {"survey": survey, "snr": snr, "separation_arcsec": separation}
                row |= {"accuracy": accuracy, "peaks_accuracy": 0.5 + 0.3 * (separation > 0.9)}
                row |= {"accuracy_low": accuracy - 0.03, "accuracy_high": accuracy + 0.03}
                yield row | {f"{control}_accuracy": 0.5 for control in CONTROLS}


@pytest.mark.parametrize(
    ("plot", "rows", "panels"),
    [
        (position_errors, position_rows, 4),
        (registration_errors, registration_rows, 2),
        (deblending_accuracy, deblending_rows, 3),
    ],
    ids=["position", "registration", "deblending"],
)
def test_a_panel_a_survey_and_every_line_in_it(tmp_path, plot, rows, panels):
    figure = plot(list(rows()))
    assert isinstance(figure, Figure)
    shown = [axis for axis in figure.axes if axis.axison]
    assert len(shown) == panels
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert any(label.startswith("tokens") for label in labels)
    assert {"random encoder", "blank sky", "shuffled"} <= labels
    for axis in shown:
        assert len([line for line in axis.lines if not line.get_label().startswith("_")]) >= 6
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_transfer_shows_both_fields_in_every_panel(tmp_path):
    rows = []
    for survey in ("rubin", "both"):
        for snr in (5.0, 10.0, 30.0, 100.0):
            row = {"figure": "position", "readout": "tokens", "survey": survey, "snr": snr}
            for prefix, value in (("", 3.0), ("home_", 2.0)):
                row |= {f"{prefix}over_bound": value, f"{prefix}over_bound_low": 0.9 * value}
                row[f"{prefix}over_bound_high"] = 1.1 * value
            rows.append(row | {"constant_over_bound": 40.0})
    (plot,) = transfer_plots([*rows, {"figure": "photometry"}])
    figure = plot.draw(rows)
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in shown] == ["rubin", "both"]
    labels = {text.get_text() for text in shown[0].get_legend().get_texts()}
    assert labels == {"second field", "home", "best constant"}
    plot.write(tmp_path)
    assert (tmp_path / "transfer.png").stat().st_size > 5_000
