"""The plot of the group `reconstruction`: how well one survey's tokens tell another's pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.photometry import BASELINE, MARKERS, with_interval
from jaisp.evaluate.plots.style import COLOURS, Plot


def reconstruction_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `reconstruction`."""
    return [Plot("reconstruction", reconstruction, rows)] if rows else []


def reconstruction(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Pearson's r of every band, a panel a survey whose tokens are decoded."""
    views = list(dict.fromkeys(row["survey"] for row in rows))
    targets = {v: [row["target"] for row in rows if row["survey"] == v] for v in views}
    widths = [len(targets[view]) + 1 for view in views]
    figure = Figure(figsize=(2.2 + 0.4 * sum(widths), 3.2), layout="constrained")
    axes = figure.subplots(1, len(views), sharey=True, squeeze=False, width_ratios=widths)[0]
    for view, axis in zip(views, axes, strict=True):
        own = [row for row in rows if row["survey"] == view]
        place = np.arange(len(own))
        with_interval(axis, place, own, "r")
        for name, marker in MARKERS.items():
            values = [np.nan if row[f"{name}_r"] is None else row[f"{name}_r"] for row in own]
            axis.plot(place, values, marker, color=COLOURS[name], markersize=4, label=name)
        matched = [row["interpolation_r"] for row in own]
        axis.plot(
            place, matched, "D", color=BASELINE, markersize=4, mfc="none", label="PSF-matched"
        )
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set_xticks(place, targets[view], rotation=90, fontsize=7)
        axis.set(xlim=(-0.7, len(own) - 0.3), ylim=(-0.2, 1.02))
        axis.set_title(f"from tokens of {view}", fontsize=8)
    axes[0].set_ylabel("Pearson r on source pixels")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure
