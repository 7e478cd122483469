"""The plots of an evaluation: each a PNG and the JSON of the numbers in it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaisp.files import atomic_write, write_json

NAMES = ("retrieval", "ranks", "similarity", "spectrum", "alignment")
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


def draw_all(folder: Path, groups: Mapping[str, list[dict]], plots: Mapping[str, Any]) -> None:
    """Draw what was measured into `folder`; plots of an earlier evaluation go.

    plots: `retrieval` and `alignment`, a list of dicts each, and `spectra`, by survey.
    """
    for name in NAMES:
        for ending in ("png", "json"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
    if groups.get("retrieval"):
        _draw(folder, "retrieval", retrieval_bars, _bars(groups["retrieval"]))
        _draw(folder, "ranks", rank_curves, [_without(p, "similarity") for p in plots["retrieval"]])
        _draw(folder, "similarity", similarity, [_without(p, "ranks") for p in plots["retrieval"]])
    if plots.get("spectra"):
        _draw(folder, "spectrum", spectrum, plots["spectra"])
    if groups.get("alignment"):
        _draw(folder, "alignment", offsets, plots["alignment"])


def retrieval_bars(rows: Sequence[dict]) -> Figure:
    """Top-1 of the model with its interval, beside every control, a panel a kind of search."""
    pairs = list(dict.fromkeys((row["query"], row["target"]) for row in rows))
    kinds = list(dict.fromkeys((row["tokens"], row["scope"]) for row in rows))
    figure = Figure(figsize=(2.1 + 2.2 * len(kinds), 3.2), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    width = 0.8 / len(COLOURS)
    for axis, kind in zip(axes, kinds, strict=True):
        own = {(r["query"], r["target"]): r for r in rows if (r["tokens"], r["scope"]) == kind}
        for i, (name, colour) in enumerate(COLOURS.items()):
            place = [
                j + (i - (len(COLOURS) - 1) / 2) * width for j, p in enumerate(pairs) if p in own
            ]
            height = [own[p][name] for p in pairs if p in own]
            axis.bar(place, height, width, color=colour, label=name)
            if name == "model":
                errors = [
                    [max(0.0, r["model"] - _number(r["low"], r["model"])) for r in own.values()],
                    [max(0.0, _number(r["high"], r["model"]) - r["model"]) for r in own.values()],
                ]
                axis.errorbar(
                    place, height, errors, fmt="none", ecolor="black", elinewidth=0.8, capsize=2
                )
        counts = [r["candidates"] for r in own.values()]
        axis.set_title(f"{_KINDS[kind]}\n{_span(counts)} candidates", fontsize=8)
        axis.set_xticks(range(len(pairs)), [f"{q}\n→ {t}" for q, t in pairs], fontsize=7)
        axis.set_ylim(0, 1.02)
    axes[0].set_ylabel("found first (top-1)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


_KINDS = {
    ("source", "field"): "sources, whole field",
    ("source", "patch"): "sources, near by",
    ("sky", "field"): "all sky, whole field",
    ("sky", "patch"): "all sky, near by",
}


def rank_curves(pairs: Sequence[dict]) -> Figure:
    """Share of the sources found within a rank, among all sources."""
    figure, axes = panels(len(pairs))
    for axis, pair in zip(axes, pairs, strict=False):
        candidates = pair["candidates"]
        for name, colour in COLOURS.items():
            ranks = np.sort(pair["ranks"][name]) + 1
            share = np.arange(1, len(ranks) + 1) / len(ranks)
            axis.step(
                [1, *ranks, candidates],
                [0, *share, share[-1]],
                where="post",
                color=colour,
                label=name,
            )
        chance = np.geomspace(1, max(candidates, 2), 100)
        axis.plot(chance, chance / candidates, ":", color="black", linewidth=0.8, label="chance")
        axis.set(
            xscale="log",
            xlim=(1, max(candidates, 2)),
            ylim=(0, 1.02),
            xlabel="rank of the right source",
            title=f"{pair['query']} → {pair['target']}",
        )
    axes[0].set_ylabel("share found within rank")
    axes[0].legend(fontsize=7)
    return figure


def similarity(pairs: Sequence[dict]) -> Figure:
    """Cosine of some sources' tokens in one survey with the same sources' in the other."""
    figure, axes = panels(len(pairs))
    for axis, pair in zip(axes, pairs, strict=False):
        shown = axis.imshow(pair["similarity"], cmap="RdBu_r", vmin=-1, vmax=1, origin="lower")
        axis.set(xlabel=f"source in {pair['target']}", ylabel=f"source in {pair['query']}")
    figure.colorbar(shown, ax=list(axes), label="cosine similarity", shrink=0.8)
    return figure


def spectrum(surveys: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Eigenvalues of the covariance of source tokens, as shares of their sum."""
    figure, axes = panels(len(surveys))
    for axis, (survey, encoders) in zip(axes, surveys.items(), strict=False):
        for name, values in encoders.items():
            share = np.asarray(values) / max(np.sum(values), 1e-30)
            axis.plot(np.arange(1, len(share) + 1), share, color=COLOURS[name], label=name)
        axis.set(xscale="log", yscale="log", ylim=(1e-7, 1), xlabel="component", title=survey)
    axes[0].set_ylabel("share of the variance")
    axes[0].legend(fontsize=7)
    return figure


def offsets(pairs: Sequence[dict]) -> Figure:
    """Offset of every source, target less query, and the median."""
    figure, axes = panels(len(pairs))
    for axis, pair in zip(axes, pairs, strict=False):
        east_north = np.reshape(pair["offsets"], (-1, 2))
        centre = np.median(east_north, axis=0) if len(east_north) else np.zeros(2)
        distance = np.abs(east_north - centre).max(axis=1) if len(east_north) else np.zeros(1)
        reach = float(max(0.02, 3 * np.median(distance), 1.3 * np.abs(centre).max()))
        axis.axhline(0, color="black", linewidth=0.5)
        axis.axvline(0, color="black", linewidth=0.5)
        axis.plot(*east_north.T, ".", color=COLOURS["model"], markersize=3, alpha=0.6)
        axis.plot(*centre, "+", color="#D55E00", markersize=12, markeredgewidth=1.6)
        # East is to the left, as on the sky.
        axis.set(
            xlim=(reach, -reach),
            ylim=(-reach, reach),
            aspect="equal",
            xlabel="Δ east (″)",
            title=f"{pair['target']} − {pair['query']} ({len(east_north)})",
        )
        axis.title.set_fontsize(8)
        axis.locator_params(nbins=5)
    axes[0].set_ylabel("Δ north (″)")
    return figure


def _bars(rows: Sequence[dict]) -> list[dict]:
    kept = ("query", "target", "tokens", "scope", "candidates", "n")
    return [
        {
            **{name: row[name] for name in kept},
            "model": row["top1"],
            "low": row["top1_low"],
            "high": row["top1_high"],
            **{name: row[f"{name}_top1"] for name in COLOURS if name != "model"},
        }
        for row in rows
    ]


def _draw(folder: Path, name: str, plot: Callable[[Any], Figure], numbers: Any) -> None:
    numbers = plain(numbers)
    write_json(folder / f"{name}.json", numbers)
    with _style(), atomic_write(folder / f"{name}.png") as temporary:
        plot(numbers).savefig(temporary, metadata={"Software": None})


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE):
        yield


def panels(count: int) -> tuple[Figure, Any]:
    """Axes in rows of up to three, at most six of them."""
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


def _number(value: float | None, default: float) -> float:
    return default if value is None else value


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}–{high}"


def _without(plot: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in plot.items() if key != name}
