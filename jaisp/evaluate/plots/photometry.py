"""The plot of the group `photometry`: what tokens know of fluxes, colours and redshift."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot

BASELINE = "#D55E00"
MARKERS = {"random": "s", "blank": "v", "shuffled": "x"}


def photometry_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `photometry`."""
    return [Plot("photometry", photometry, rows)] if rows else []


def photometry(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """R² and scatter of every target, a column of panels a survey whose tokens are read."""
    return beside(rows, "aperture", "aperture photometry")


def beside(rows: Sequence[Mapping[str, Any]], baseline: str, label: str) -> Figure:
    """R² of the model with its interval, of its controls and of a baseline; below, scatters.

    baseline: as in the rows' `…_r2` and `…_scatter`. Targets stand in the order of the rows.
    """
    views = list(dict.fromkeys(row["survey"] for row in rows))
    targets = list(dict.fromkeys(row["target"] for row in rows))
    width = 1.2 + len(views) * max(1.8, 0.24 * len(targets))
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    axes = figure.subplots(2, len(views), sharex=True, sharey="row", squeeze=False)
    for view, (upper, lower) in zip(views, axes.T, strict=True):
        own = [row for row in rows if row["survey"] == view]
        place = np.array([targets.index(row["target"]) for row in own])
        with_interval(upper, place, own, "r2")
        with_interval(lower, place, own, "scatter")
        for name, marker in MARKERS.items():
            values = [_number(row[f"{name}_r2"]) for row in own]
            upper.plot(place, values, marker, color=COLOURS[name], markersize=4, label=name)
        for axis, figure_name in ((upper, "r2"), (lower, "scatter")):
            values = [_number(row[f"{baseline}_{figure_name}"]) for row in own]
            axis.plot(place, values, "D", color=BASELINE, markersize=4, mfc="none", label=label)
        upper.axhline(0, color="black", linewidth=0.5)
        upper.set_ylim(-0.15, 1.02)
        lower.set_yscale("log")
        upper.set_title(f"tokens of {view}", fontsize=8)
        lower.set_xticks(range(len(targets)), targets, rotation=90, fontsize=7)
    axes[0, 0].set_ylabel("R²")
    axes[1, 0].set_ylabel(f"scatter ({_units(rows)})")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure


def with_interval(
    axis: Any, place: np.ndarray, rows: Sequence[Mapping[str, Any]], name: str
) -> None:
    """The model's figure and its 95 % interval."""
    value, low, high = (
        np.array([_number(row[f"{name}{end}"]) for row in rows]) for end in ("", "_low", "_high")
    )
    errors = np.nan_to_num(np.maximum(np.stack([value - low, high - value]), 0))
    axis.errorbar(
        place, value, errors, fmt="o", color=COLOURS["model"], markersize=4, elinewidth=0.8,
        capsize=2, label="model",
    )  # fmt: skip


def _units(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(row["unit"] for row in rows if row["unit"] != "1"))


def _number(value: float | None) -> float:
    return np.nan if value is None else value
