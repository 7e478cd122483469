"""Plot of what is lost when a band or a survey is withheld."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot


def withheld_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `withheld`."""
    return [Plot("withheld", withheld_bars, rows)] if rows else []


def withheld_bars(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss of each figure without each band or survey, a panel a figure; above 0 is worse."""
    names = list(dict.fromkeys(row["figure"] for row in rows))
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        own = [row for row in rows if row["figure"] == name]
        places = range(len(own))
        loss = [row["loss"] for row in own]
        below = [max(0.0, row["loss"] - (row["loss_low"] or 0.0)) for row in own]
        above = [max(0.0, (row["loss_high"] or 0.0) - row["loss"]) for row in own]
        axis.bar(places, loss, 0.6, color=COLOURS["model"], label="model")
        axis.errorbar(places, loss, [below, above], fmt="none", ecolor="black", capsize=2)
        for control, marker in (("random", "o"), ("pixels", "s")):
            if all(f"{control}_loss" in row for row in own):
                losses = [row[f"{control}_loss"] for row in own]
                axis.plot(
                    places, losses, marker, color=COLOURS[control], markersize=4, label=control
                )
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(places, [f"− {row['withheld']}" for row in own], fontsize=7)
        axis.set_title(f"{name}\n{own[0]['complete']:.3g} with everything", fontsize=8)
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=7)
    return figure
