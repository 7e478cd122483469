"""Error of a displaced survey's recovered shift against the shift, beside the classical answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jaisp.evaluate.plots.position import line, with_interval
from jaisp.evaluate.plots.style import COLOURS, Plot, panels

OTHERS: dict[str, tuple[str, str, str]] = {
    "phase_correlation_mas": ("#E69F00", "--", "phase correlation"),
    "catalogue_mas": ("#D55E00", "--", "matched catalogues"),
    "shared_mas": (COLOURS["model"], "-.", "readout of the other survey"),
    "random_mas": (COLOURS["random"], ":", "random encoder"),
    "blank_mas": (COLOURS["blank"], ":", "blank sky"),
    "shuffled_mas": (COLOURS["shuffled"], ":", "shuffled"),
    "constant_mas": ("black", ":", "no answer"),
}
LEAST_MAS = 1.0  # up to here the axes are linear, so that no shift at all can be shown


def registration_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `registration`."""
    return [Plot("registration", registration_errors, rows)] if rows else []


def registration_errors(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel a pair of surveys."""
    pairs = list(dict.fromkeys((row["survey"], row["target"]) for row in rows))
    figure, axes = panels(len(pairs))
    for number, (axis, pair) in enumerate(zip(axes, pairs, strict=False)):
        own = [row for row in rows if (row["survey"], row["target"]) == pair]
        for name, (colour, style, label) in OTHERS.items():
            line(axis, own, "shift_mas", name, colour, style, label)
        with_interval(axis, own, "shift_mas", "error_mas", "tokens")
        axis.set_xscale("symlog", linthresh=100)
        axis.set_yscale("symlog", linthresh=LEAST_MAS)
        axis.set_xticks([0, 50, 100, 200, 500], ["0", "50", "100", "200", "500"])
        axis.set_xticks([], minor=True)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("shift put in (mas)")
        axis.set_title(f"{pair[0]} on {pair[1]}")
        if number % 3 == 0:
            axis.set_ylabel("σ of a patch's shift (mas)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure
