"""Bars for who watches, and nothing for who doesn't."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaisp.progress import arriving


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bytes_are_counted_from_what_was_here_before():
    with arriving("fetch") as arrivals:
        arrivals.expect("a", 100)
        arrivals.expect("b", 0)
        assert arrivals.counts() == (0, 100)
        arrivals.tell("a", 30, 100)
        assert arrivals.counts() == (0, 70)
        arrivals.tell("a", 50, 100)
        arrivals.tell("b", 0, None)
        arrivals.tell("b", 5, None)
        assert arrivals.counts() == (25, 75)
        arrivals.tell("a", 0, 120)  # begun anew, and another file now
        assert arrivals.counts() == (5, 125)
        arrivals.drop("a")
        assert arrivals.counts() == (5, 5)
        arrivals.drop("never told")


def test_several_at_a_time():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 1000, size=40)

    def bring(file):
        for here in range(lengths[file] + 1):
            arrivals.tell(file, here, int(lengths[file]))

    with arriving("fetch") as arrivals, ThreadPoolExecutor(8) as pool:
        list(pool.map(bring, range(len(lengths))))
    assert arrivals.counts() == (lengths.sum(), lengths.sum())


def test_on_a_terminal_it_is_drawn_and_elsewhere_not(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with arriving("fetch 3") as arrivals:
            arrivals.tell("a", 0, 2_000_000)
            arrivals.tell("a", 1_500_000, 2_000_000)
        told = stream.getvalue()
        assert ("fetch 3" in told and "1.5/2.0 MB" in told) == stream.isatty()
        assert bool(told) == stream.isatty()
