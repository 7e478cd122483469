"""Training curves, from results/RUN/history.jsonl: whatever it holds."""

import json
import math
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaisp.report.svg import SERIES, STYLE, panels, to_svg

# Panel title and what the keys that it shows look like; a key goes to the first that fits.
PANELS = (
    ("Loss", r"^((across|within)_)?loss$"),
    ("Alignment term", r"(^|_)alignment$"),
    ("Variance term", r"(^|_)variance$"),
    ("Covariance term", r"(^|_)covariance$"),
    ("Normality term", r"(^|_)normality$"),
    ("Photometry term", r"(^|_)photometry$"),
    ("Position term", r"^position_"),
    ("Validation retrieval, top 1", r"^validation.*top"),
    ("Dimensions in use", r"^(participation_ratio|rankme)"),
    ("Smallest standard deviation", r"^smallest_std"),
    ("Learning rate", r"^learning_rate"),
    ("Gradient norm", r"^gradient_norm"),
    ("Pairs, by kind", r"^pairs"),
)
NOT_CURVES = ("step", "time", "seconds", "epoch", "version", "validation_tokens")
MOST_NAMED = 6
# More names than this find no room beside curves; one takes this share of a panel's height.
MOST_BESIDE = 3
LINE = 0.1


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(_flat(row))
    return rows


def training_curves(history: list[dict[str, Any]]) -> str:
    """Small panels of every number that the history holds against the step."""
    series = _series(history)
    shown = _panels(series)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(rows, columns, 9.6, 2.15 * rows)
        for ax, (title, keys) in zip(axes, shown, strict=False):
            _draw(ax, title, {key: series[key] for key in keys})
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for ax in axes[max(0, len(shown) - columns) : len(shown)]:
            ax.set_xlabel("step")
        last = history[-1]["step"]
        titles = ", ".join(title.lower() for title, _ in shown)
        return to_svg(figure, f"Training curves over {last} steps: {titles}.")


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A row with nested objects spread out: {"cross": {"a>b": 1}} has the key "cross a>b"."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name} ") if isinstance(value, dict) else {name: value}
    return flat


def _series(history: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Steps and values of every numeric key, [2, points]."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in history:
        for key, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if key not in NOT_CURVES and number and math.isfinite(value):
                points.setdefault(key, []).append((row["step"], value))
    return {key: np.array(values).T for key, values in points.items()}


def _panels(series: dict[str, np.ndarray]) -> list[tuple[str, list[str]]]:
    left = list(series)
    shown = []
    for title, looks in PANELS:
        keys = [key for key in left if re.search(looks, key)]
        left = [key for key in left if key not in keys]
        if keys:
            shown.append((title, keys))
    return shown + [(key.replace("_", " ").capitalize(), [key]) for key in left]


def _draw(ax: Axes, title: str, curves: dict[str, np.ndarray]) -> None:
    ax.set_title(title)
    for number, (key, (step, value)) in enumerate(curves.items()):
        colour = SERIES[number % len(SERIES)]
        marker = "o" if len(step) == 1 else None
        smooth = _smooth(value)
        if smooth is not value:
            ax.plot(step, value, color=colour, linewidth=0.5, alpha=0.35)
        label = key.removeprefix("pairs ").replace("_", " ") if len(curves) > 1 else None
        ax.plot(step, smooth, color=colour, linewidth=1.3, marker=marker, label=label)
    values = np.concatenate([value for _, value in curves.values()])
    if values.min() > 0 and values.max() > 50 * values.min():
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if 1 < len(curves) <= MOST_NAMED:
        _legend(ax, len(curves))


def _legend(ax: Axes, names: int) -> None:
    """A legend where the curves leave room; above them, where it is too long for that."""
    if names > MOST_BESIDE:
        scale = ax.yaxis.get_transform()
        low, high = scale.transform(np.array(ax.get_ylim()))
        top = low + (high - low) / (1 - LINE * names)
        ax.set_ylim(top=float(scale.inverted().transform(np.array([top]))[0]))
    ax.legend(loc="upper left" if names > MOST_BESIDE else "best")


def _smooth(value: np.ndarray) -> np.ndarray:
    """A running mean over a fortieth of a long curve; a short one as it is."""
    if len(value) < 80:
        return value
    width = len(value) // 40 | 1
    padded = np.pad(value, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
