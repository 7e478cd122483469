"""The plot of the group `morphology`: what tokens know of the sizes and shapes of galaxies."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jaisp.evaluate.plots.photometry import beside
from jaisp.evaluate.plots.style import Plot


def morphology_plots(rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """rows: of the group `morphology`."""
    return [Plot("morphology", morphology, rows)] if rows else []


def morphology(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """R² and scatter of size and ellipticity, a column of panels a survey whose tokens are read."""
    return beside(rows, "moments", "adaptive moments")
