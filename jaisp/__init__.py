"""JAISP, Joint AI Survey Processing: one representation of the sky from many instruments.

`jaisp.open` reads a patch store, `jaisp.load` a trained model, `jaisp.embed` turns a FITS
cutout into tokens. What they need is imported when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "embed", "load", "open"]

_PUBLIC = {
    "open": ("jaisp.store.reader", "open_store"),
    "load": ("jaisp.model", "load_model"),
    "embed": ("jaisp.embedding", "embed"),
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, function = _PUBLIC[name]
        return getattr(import_module(module), function)
    raise AttributeError(f"module 'jaisp' has no attribute {name!r}")
