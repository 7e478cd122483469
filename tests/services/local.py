"""What servers on this machine have in common: they may lack, need a port, and take a while."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PAUSE_S = 0.02


def need(is_here: bool, lacking: str) -> None:
    """Skip what can't be run here, saying so; fail where everything is to be run."""
    if is_here:
        return
    if os.environ.get("JAISP_REQUIRE_REAL_DATA"):
        pytest.fail(lacking)
    pytest.skip(lacking)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def is_open(port: int) -> bool:
    """Whether something takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    answers: Callable[[], bool],
    server: subprocess.Popen,
    most_s: float = 30,
    log: Path | None = None,
) -> None:
    """Until the server answers; an end of it, and silence for so long, are told with its log."""

    def state(what: str) -> str:
        said = "" if log is None else log.read_text()[-3000:]
        return f"{server.args[0]} {what}: {said}"

    end = time.monotonic() + most_s
    while not answers():
        assert server.poll() is None, state("ended")
        assert time.monotonic() < end, state("does not answer")
        time.sleep(PAUSE_S)
