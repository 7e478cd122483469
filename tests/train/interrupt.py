"""Trainings that are interrupted."""

from collections.abc import Callable

import pytest

from jaisp.train import loop


def interrupted_at(
    end: int, monkeypatch: pytest.MonkeyPatch, training: Callable[[], object]
) -> None:
    """Start a training that is interrupted when step `end` begins."""
    real = loop.Run._step

    def step(self, number):
        if number == end:
            raise KeyboardInterrupt
        real(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            training()
