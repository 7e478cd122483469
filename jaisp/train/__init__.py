"""Stage train: pairs of views, the objective, and the loop."""

from typing import Any

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    # Lazy, so that the config section can be read without loading torch.
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaisp.train.loop import train

    return train
