"""Stage embed: a trained model over whole cells, and over any FITS cutout.

`embed_cell` writes the token grid of one cell and survey, `embed_maps` draws the grids of all of
them in one set of colours, `embed` is the public call for a file of one's own.
"""

from importlib import import_module
from typing import Any

__all__ = ["embed", "embed_cell", "embed_maps"]

_HOMES = {"embed": "cutout", "embed_cell": "cell", "embed_maps": "maps"}


def __getattr__(name: str) -> Any:
    # Lazy, so that the report can use the pictures without loading torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
