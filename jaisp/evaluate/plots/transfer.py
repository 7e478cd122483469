"""The plot of transfer: how far from the bound, at home and on the second field."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot, panels

# Prefix of the columns, colour, name.
FIELDS = (("", COLOURS["model"], "second field"), ("home_", "#56B4E9", "home"))


def transfer_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `transfer`, those of positions."""
    own = [row for row in rows if row["figure"] == "position" and row["readout"] == "tokens"]
    return [Plot("transfer", over_bound, own)] if own else []


def over_bound(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Error over the bound against S/N, a panel a survey: here, at home, and a constant answer."""
    surveys = list(dict.fromkeys(row["survey"] for row in rows))
    figure, axes = panels(len(surveys))
    for axis, survey in zip(axes, surveys, strict=False):
        own = sorted((row for row in rows if row["survey"] == survey), key=lambda row: row["snr"])
        snr = [row["snr"] for row in own]
        for prefix, colour, label in FIELDS:
            value = np.array([row[f"{prefix}over_bound"] for row in own])
            ends = np.array(
                [[row[f"{prefix}over_bound_{end}"] for row in own] for end in ("low", "high")]
            )
            axis.errorbar(
                snr, value, np.abs(ends - value), color=colour, marker="o", markersize=4,
                capsize=2, label=label,
            )  # fmt: skip
        constant = [row["constant_over_bound"] for row in own]
        axis.plot(snr, constant, ":", color="black", label="best constant")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="S/N", title=survey)
    axes[0].set_ylabel("error over the Cramér–Rao bound")
    axes[0].legend(fontsize=7)
    return figure
