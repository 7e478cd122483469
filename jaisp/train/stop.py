"""Being told to stop: signals that are noted while a step is made, and heeded after it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jaisp.errors import StoppedError

# Slurm sends SIGTERM to what it preempts and cancels, and either where `--signal` asks for it.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Told:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def note(self, number: int, _: object) -> None:
        """Set a signal down: a handler, which may be called between any two instructions."""
        self.signal = signal.Signals(number)


@contextmanager
def noted_signals() -> Iterator[Told]:
    """Within, SIGTERM and SIGUSR1 end nothing. Outside of the main thread nothing changes."""
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {number: signal.signal(number, told.note) for number in SIGNALS}
    ends = False
    try:
        yield told
    except StoppedError:
        # One of several that stop together, whichever of them was told, ends by itself now, and
        # must not be ended before that by who started it, because another has ended already.
        # Python takes its own handlers away as it ends, and leaves ignored what is ignored.
        ends = "RANK" in os.environ
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)
