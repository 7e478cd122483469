"""Error of position against S/N, beside what the pixels allow and the classical answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot, panels

# Colour, line style and label of everything but the model.
OTHERS: dict[str, tuple[str, str, str]] = {
    "bound_mas": ("black", "-", "Cramér–Rao bound"),
    "psf_fit_mas": ("#D55E00", "--", "PSF fit"),
    "centroid_mas": ("#E69F00", "--", "windowed centroid"),
    "random_mas": (COLOURS["random"], ":", "random encoder"),
    "blank_mas": (COLOURS["blank"], ":", "blank sky"),
    "shuffled_mas": (COLOURS["shuffled"], ":", "shuffled"),
    "constant_mas": ("black", ":", "best constant"),
}
# Colour of readouts beside that of a survey's tokens.
MORE = {"scales": "#56B4E9", "agreed": COLOURS["model"]}


def position_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `position`; a plot a sky, of the readouts of tokens."""
    by_sky: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_sky.setdefault(row["field"], []).append(row)
    return [Plot(f"position_{sky}", position_errors, own) for sky, own in by_sky.items()]


def position_errors(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel a survey, both, and one survey's readout on another's tokens, of rows of one sky."""
    surveys = list(dict.fromkeys(row["survey"] for row in rows))
    figure, axes = panels(len(surveys))
    for number, (axis, survey) in enumerate(zip(axes, surveys, strict=False)):
        own = [row for row in rows if row["survey"] == survey]
        _errors(axis, [row for row in own if row["readout"] == "tokens"])
        for readout, colour in MORE.items():
            more = [row for row in own if row["readout"] == readout]
            line(axis, more, "snr", "median_mas", colour, "-.", readout)
        axis.set(xscale="log", yscale="log", xlabel="S/N", title=survey.replace(">", " → "))
        if number % 3 == 0:
            axis.set_ylabel("σ of a coordinate (mas)")
    drawn: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        drawn = dict(zip(labels, handles, strict=True)) | drawn
    figure.legend(list(drawn.values()), list(drawn), loc="outside right center", fontsize=7)
    return figure


def _errors(axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for name, (colour, style, label) in OTHERS.items():
        line(axis, rows, "snr", name, colour, style, label)
    with_interval(axis, rows, "snr", "median_mas", "tokens")


def line(
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    colour: str,
    style: str,
    label: str,
) -> None:
    """One column against another, where it is known; rows in the order of x."""
    known = sorted((row[x], row[y]) for row in rows if row.get(y) is not None)
    if known:
        axis.plot(*zip(*known, strict=True), style, color=colour, label=label, linewidth=1.1)


def with_interval(
    axis: Axes, rows: Sequence[Mapping[str, Any]], x: str, y: str, label: str
) -> None:
    """The model's figure with its 95 % interval; open where the row is underpowered."""
    rows = sorted((row for row in rows if row.get(y) is not None), key=lambda row: row[x])
    if not rows:
        return
    places, values = [row[x] for row in rows], [row[y] for row in rows]
    colour = COLOURS["model"]
    axis.plot(places, values, "-", color=colour, linewidth=1.6, label=label)
    for place, value, row in zip(places, values, rows, strict=True):
        face = "white" if row.get("underpowered") else colour
        axis.plot(place, value, "o", color=colour, markerfacecolor=face, markersize=4)
        low, high = row.get(f"{y}_low"), row.get(f"{y}_high")
        if low is not None and high is not None:
            axis.vlines(place, low, high, color=colour, linewidth=1)
