"""`jaisp fetch` as a process of its own that is killed in a phase of its work."""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jaisp.fetch  # noqa: F401  once for all, before processes are forked
from jaisp.cli import main


def fetch(folder: Path, cache: Path, phase: str | None = None, delay_s: float = 0.0) -> None:
    """Run it in `folder`; killed in `phase`, so long after that began."""
    os.setsid()
    os.environ["JAISP_CACHE"] = str(cache)
    os.chdir(folder)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    if phase is not None:
        PHASES[phase](delay_s)
    sys.argv = ["jaisp", "fetch", "--config", "config.yaml"]
    main()


def kill() -> None:
    """With all that it has started."""
    os.killpg(0, signal.SIGKILL)


def before(where: str) -> Callable[[float], None]:
    """Killed when it is about to do this."""
    return lambda _: _replace(where, lambda original: lambda *a, **k: kill())


def after(where: str) -> Callable[[float], None]:
    """Killed when it has just done this."""

    def spoiled(original):
        def call(*arguments, **options):
            original(*arguments, **options)
            kill()

        return call

    return lambda _: _replace(where, spoiled)


def during(where: str) -> Callable[[float], None]:
    """Killed while it does this, or right after."""

    def spoil(delay_s):
        def spoiled(original):
            def call(*arguments, **options):
                threading.Timer(delay_s, kill).start()
                original(*arguments, **options)
                time.sleep(60)

            return call

        _replace(where, spoiled)

    return spoil


def _replace(where: str, spoiled: Callable) -> None:
    module, _, names = where.partition(":")
    owner = importlib.import_module(module)
    *path, name = names.split(".")
    for each in path:
        owner = getattr(owner, each)
    setattr(owner, name, spoiled(getattr(owner, name)))


PHASES = {
    "before the first byte": before("jaisp.transfer.body:Body._open"),
    "with a note, and no byte": after("jaisp.transfer.body:_begin"),
    "while receiving": during("jaisp.transfer.download:receive"),
    "while verifying": during("jaisp.fetch:verify_structure"),
    "before the entry": before("jaisp.transfer.download:add_note"),
    "between entry and rename": before("jaisp.transfer.part:Part.finish"),
    "right after the rename": after("jaisp.transfer.part:Part.finish"),
    "while gathering": during("jaisp.fetch:gather_fetched"),
}
