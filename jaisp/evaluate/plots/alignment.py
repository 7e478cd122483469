"""The plot of alignment: every source's offset between two surveys."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot, panels


def alignment_plots(pairs: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """pairs: of each pair of bands, the offsets of its sources."""
    return [Plot("alignment", offsets, pairs)] if pairs else []


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
