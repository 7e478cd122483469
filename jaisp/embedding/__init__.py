"""Stage embed: a trained model over whole cells, and over any FITS cutout.

`embed_cells` writes the token grids of some cells in a survey, `fit_maps` fits one set of colours
to those of a run, `draw_maps` draws them in it; `embed` is the public call for a file of one's own.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "embed": "cutout",
    "embed_cell": "cell",
    "embed_cells": "cell",
    "draw_maps": "maps",
    "embed_maps": "maps",
    "fit_maps": "maps",
    "gather_maps": "maps",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Lazy, so that the report can use the pictures without loading torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
