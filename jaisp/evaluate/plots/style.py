"""How all plots of an evaluation look, and the numbers that are written beside each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaisp.files import atomic_write, write_json

# Okabe & Ito's colours, which colour-blind readers tell apart.
COLOURS = {
    "model": "#0072B2",
    "pixels": "#E69F00",
    "random": "#009E73",
    "blank": "#CC79A7",
    "shuffled": "#7F7F7F",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.linewidth": 0.8,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 150,
}
MOST_PANELS = 6


@dataclass(frozen=True)
class Plot:
    """A plot to be drawn: `draw` makes a figure of `numbers` as JSON holds them."""

    name: str
    draw: Callable[[Any], Figure]
    numbers: Any

    def write(self, folder: Path) -> None:
        """Write NAME.png and NAME.json."""
        numbers = plain(self.numbers)
        write_json(folder / f"{self.name}.json", numbers)
        with matplotlib.rc_context(STYLE), atomic_write(folder / f"{self.name}.png") as temporary:
            self.draw(numbers).savefig(temporary, metadata={"Software": None})


def panels(count: int) -> tuple[Figure, Any]:
    """A figure of up to six panels, and their axes."""
    count = min(count, MOST_PANELS)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.2 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def plain(value: Any) -> Any:
    """The same as JSON holds it: lists, rounded numbers, null where a figure is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
