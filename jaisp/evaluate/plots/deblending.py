"""How well pairs are told from single sources against their separation, beside peak finding."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from jaisp.evaluate.plots.position import line, with_interval
from jaisp.evaluate.plots.style import COLOURS, Plot, panels

OTHERS: dict[str, tuple[str, str, str]] = {
    "peaks_accuracy": ("#D55E00", "--", "peak finding"),
    "random_accuracy": (COLOURS["random"], ":", "random encoder"),
    "blank_accuracy": (COLOURS["blank"], ":", "blank sky"),
    "shuffled_accuracy": (COLOURS["shuffled"], ":", "shuffled"),
}


def deblending_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `deblending`."""
    return [Plot("deblending", deblending_accuracy, rows)] if rows else []


def deblending_accuracy(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Balanced accuracy, a panel a survey; of single S/N, thin lines, the darker the brighter."""
    surveys = list(dict.fromkeys(row["survey"] for row in rows))
    levels = sorted({row["snr"] for row in rows if row["snr"] is not None})
    shades = matplotlib.colormaps["Blues"]
    figure, axes = panels(len(surveys))
    for number, (axis, survey) in enumerate(zip(axes, surveys, strict=False)):
        own = [row for row in rows if row["survey"] == survey]
        for place, snr in enumerate(levels):
            of_level = [row for row in own if row["snr"] == snr]
            shade = matplotlib.colors.to_hex(shades(0.3 + 0.5 * place / len(levels)))
            line(axis, of_level, "separation_arcsec", "accuracy", shade, "-", f"S/N {snr:g}")
        together = [row for row in own if row["snr"] is None]
        for name, (colour, style, label) in OTHERS.items():
            line(axis, together, "separation_arcsec", name, colour, style, label)
        with_interval(axis, together, "separation_arcsec", "accuracy", "tokens, all S/N")
        axis.axhline(0.5, color="black", linewidth=0.5)
        axis.set(ylim=(0.4, 1.02), xlabel="separation (″)", title=survey)
        if number % 3 == 0:
            axis.set_ylabel("balanced accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure
