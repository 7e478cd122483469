"""Matplotlib figures as SVG that takes the page's font and colours, light or dark."""

import io
import re
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaisp.sky import SPLITS

# Stand-ins that no figure uses otherwise; in the page each becomes a CSS colour.
INK = "#010203"
FAINT = "#040506"
SERIES = [f"#0708{number:02x}" for number in range(9, 15)]
SPLIT_COLOURS = {name: f"#0809{number:02x}" for name, number in SPLITS.items()}
_CSS = {INK: "currentColor", FAINT: "var(--rule)"}
_CSS |= {colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)}
_CSS |= {colour: f"var(--split-{name})" for name, colour in SPLIT_COLOURS.items()}

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaisp",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.2,
}


def panels(
    rows: int, columns: int, width: float, height: float, heights: list[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of small panels, sizes in inches; use inside `matplotlib.rc_context(STYLE)`.

    heights: of its rows, in proportion; default all alike.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    figure.patch.set_alpha(0)
    for one in axes.flat:
        one.patch.set_alpha(0)
    return figure, list(axes.flat)


def to_svg(figure: Figure, description: str) -> str:
    """The figure as inline SVG, with a description for those who can't see it."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    for colour, css in _CSS.items():
        text = text.replace(colour, css)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    label = escape(description, quote=True)
    return re.sub(
        r'<svg [^>]*?(viewBox="[^"]+")[^>]*>',
        rf'<svg xmlns:xlink="http://www.w3.org/1999/xlink" \1 role="img" aria-label="{label}">',
        text,
        count=1,
    )
