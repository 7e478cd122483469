"""Plots of what is lost when a band or a survey is withheld."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot

MOST_BARS = 6  # figures, beyond which they are the lines of one table of colours
A_LINE = 5  # bars of a panel, beyond which panels lie below one another
A_FEW_PERCENT = 12.0  # below which losses are told to a tenth

Rows = Sequence[Mapping[str, Any]]


def withheld_plots(name: str, rows: Rows) -> list[Plot]:
    """rows: of the group `withheld`, of figures of the group `name`."""
    few = len(_figures(rows)) <= MOST_BARS
    return (
        [Plot(f"withheld_{name}", withheld_bars if few else withheld_table, rows)] if rows else []
    )


def withheld_bars(rows: Rows) -> Figure:
    """Loss of each figure without each band or survey, a panel a figure; above 0 is worse."""
    names = _figures(rows)
    most = max(sum(row["figure"] == name for row in rows) for name in names)
    columns = min(len(names), 3 if most <= A_LINE else 2)
    lines = -(-len(names) // columns)
    width = max(3.4, 0.8 + 0.38 * most)
    figure = Figure(figsize=(width * columns, 2.6 * lines), layout="constrained")
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
        rotation = 90 if len(own) > A_LINE else 0
        axis.set_xticks(places, [_label(row) for row in own], fontsize=7, rotation=rotation)
        # Without a survey more sources are measured than without a band.
        complete = sorted(row["complete"] for row in own)
        known = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (complete[0], complete[-1])))
        axis.set_title(f"{name}\n{known} with everything", fontsize=8)
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=7)
    return figure


def withheld_table(rows: Rows) -> Figure:
    """Loss of many figures, in per cent of the figure with everything; red is worse.

    Bold numbers are of losses whose interval doesn't hold 0.
    """
    names = _figures(rows)
    taken = list(dict.fromkeys((row["survey"], row["withheld"]) for row in rows))
    taken.sort(key=lambda own: (own[0], own[0] == own[1]))
    share = np.full((len(names), len(taken)), np.nan)
    sure = np.zeros(share.shape, bool)
    for row in (row for row in rows if row["complete"]):
        place = names.index(row["figure"]), taken.index((row["survey"], row["withheld"]))
        share[place] = 100 * row["loss"] / abs(row["complete"])
        low, high = (row[f"loss_{end}"] for end in ("low", "high"))
        sure[place] = low is not None and high is not None and (low > 0 or high < 0)
    size = 2.6 + 0.46 * len(taken), 1.4 + 0.24 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    known = np.abs(share[np.isfinite(share)])
    # The largest few don't drown the others.
    most = max(2.0, 1.6 * float(np.percentile(known, 90))) if len(known) else 2.0
    image = axis.imshow(share, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    digits = 0 if most > A_FEW_PERCENT else 1
    for (line, column), value in np.ndenumerate(share):
        if np.isfinite(value):
            axis.text(
                column, line, f"{round(value, digits) + 0.0:+.{digits}f}", ha="center",
                va="center", fontsize=7, fontweight="bold" if sure[line, column] else "normal",
                color="white" if abs(value) > 0.6 * most else "black",
            )  # fmt: skip
    axis.set_yticks(range(len(names)), [" ".join(n.split()[2:]) for n in names], fontsize=7)
    labels = [survey if survey == band else f"{survey}:{band}" for survey, band in taken]
    axis.set_xticks(range(len(taken)), [f"− {own}" for own in labels], fontsize=7, rotation=90)
    axis.tick_params(length=0)
    axis.set_title(" ".join(names[0].split()[:2]), fontsize=9)
    label = "loss (% of the figure with everything)"
    figure.colorbar(image, ax=axis, extend="both", label=label, aspect=40)
    return figure


def _figures(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["figure"] for row in rows))


def _label(row: Mapping[str, Any]) -> str:
    return f"− {row['withheld']}"
