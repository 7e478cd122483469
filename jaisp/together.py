"""Jobs of one command side by side, each in a process of its own.

Threads are enough to wait in, but of Python only one works at a time: where jobs have much to do,
as where files come faster than one processor takes them, processes do it.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from jaisp.disk import disk_error
from jaisp.errors import LostProcessError, UserError

LOOK_S = 0.5  # between two looks whether the process that started this one is still there


def side_by_side(
    jobs: Sequence[Callable[[], None]], watching: AbstractContextManager[Callable[[], None]]
) -> None:
    """Do all of them at once; where one fails, the others are ended.

    watching: gives what is called every now and then while they are at it. What they have imported,
    opened and set is this process's (they are forked, so that nothing is imported anew); they end
    with it, however it ends. Raises UserError for what the user can mend, and LostProcessError
    where one was killed, or has told of its error itself.
    """
    context = multiprocessing.get_context("fork")
    begun: dict[Connection, ForkProcess] = {}
    try:
        for job in jobs:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, there, os.getpid()))
            process.start()
            there.close()
            begun[here] = process
        # Entered when all are forked: it may start threads.
        with watching as watch:
            left = dict(begun)
            while left:
                said = wait(list(left), timeout=LOOK_S)
                for here in [each for each in left if each in said]:
                    _end_of(left.pop(here), here)
                watch()
    finally:
        for process in begun.values():
            process.terminate()
            process.join()


def _end_of(process: ForkProcess, said: Connection) -> None:
    """Raise what ended a job, unless it is done."""
    try:
        reason = said.recv_bytes().decode()
    except EOFError:
        process.join()
        raise LostProcessError(
            f"one process of several ended ({process.exitcode}), and the others were ended; the "
            "same command goes on from here"
        ) from None
    if reason:
        raise UserError(reason)


def _work(job: Callable[[], None], told: Connection, parent: int) -> None:
    """One job, in its own process."""
    # Ctrl-C reaches all processes of a terminal: the first one tells, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    reason = ""
    try:
        job()
    except UserError as error:
        reason = str(error)
    except Exception as error:
        reason = disk_error(error) or ""
        if not reason:
            raise
    told.send_bytes(reason.encode())


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)
