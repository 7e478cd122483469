"""Plot of retrieval between single bands."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaisp.evaluate.plots.style import Plot


def band_plots(rows: Sequence[dict[str, Any]]) -> list[Plot]:
    """rows: of the group `retrieval`, of single bands."""
    return [Plot("bands", band_matrix, rows)] if rows else []


def is_of_bands(row: Mapping[str, Any]) -> bool:
    """Whether a row of the group `retrieval` is of single bands, `survey:band`."""
    return ":" in row["query"]


def band_matrix(rows: Sequence[dict[str, Any]]) -> Figure:
    """Top-1 among the sources of the whole field, from each band (rows) to each (columns)."""
    found = {
        (row["query"], row["target"]): row
        for row in rows
        if (row["tokens"], row["scope"]) == ("source", "field")
    }
    names = list(dict.fromkeys(name for pair in found for name in pair))
    names.sort(key=lambda name: name.split(":")[0])
    values = np.full((len(names), len(names)), np.nan)
    for (query, target), row in found.items():
        values[names.index(query), names.index(target)] = row["top1"]
    side = 1.8 + 0.48 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(values, cmap="viridis", vmin=0, vmax=1)
    for i, j in np.argwhere(np.isfinite(values)):
        row = found[names[i], names[j]]
        # In brackets where there are too few sources to say.
        text = f"({values[i, j]:.2f})" if row["underpowered"] else f"{values[i, j]:.2f}"
        axis.text(
            j, i, text, ha="center", va="center", fontsize=6,
            color="black" if values[i, j] > 0.6 else "white",
        )  # fmt: skip
    _outline_surveys(axis, names)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.tick_params(length=0)
    counts = [row["n"] for row in found.values()]
    axis.set(xlabel="searched in", ylabel="token of")
    axis.set_title(f"found first, {min(counts)}–{max(counts)} sources a pair", fontsize=8)
    figure.colorbar(shown, ax=axis, label="top-1", shrink=0.7)
    return figure


def _outline_surveys(axis: Any, names: Sequence[str]) -> None:
    surveys = [name.split(":")[0] for name in names]
    for survey in dict.fromkeys(surveys):
        first, count = surveys.index(survey), surveys.count(survey)
        axis.add_patch(
            Rectangle(
                (first - 0.5, first - 0.5), count, count, fill=False, color="white", linewidth=1.6
            )
        )
