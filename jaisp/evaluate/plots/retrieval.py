"""Plots of retrieval: how often the right source is found, at which rank, how alike tokens are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot, panels


def retrieval_plots(rows: Sequence[dict], pairs: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """pairs: what `retrieval` keeps of each ordered pair for plots."""
    if not rows:
        return []
    return [
        Plot("retrieval", retrieval_bars, _bars(rows)),
        Plot("ranks", rank_curves, [_without(pair, "similarity") for pair in pairs]),
        Plot("similarity", similarity, [_without(pair, "ranks") for pair in pairs]),
    ]


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


def _number(value: float | None, default: float) -> float:
    return default if value is None else value


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}–{high}"


def _without(plot: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in plot.items() if key != name}
