"""What a command's own process is: its threads, its memory, its log, and whether it is the one that
tells."""

import ctypes
import logging
import os
import sys
from pathlib import Path

log = logging.getLogger("jaisp")

# Parameters of glibc's mallopt(3), by malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def set_threads(threads: int | None) -> None:
    """How many threads libraries may take that are imported from here on; None: as they like."""
    if threads is not None:
        for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            os.environ.setdefault(f"{library}_NUM_THREADS", str(threads))


def keep_memory() -> None:
    """Let freed memory stay with this process, for the next large array.

    glibc takes large arrays from the kernel one by one and gives each back, and their pages are
    cleared anew every time: a fifth of a step's time on the CPU where it was measured, for a tenth
    more memory at the peak. Other C libraries stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def start_log(log_file: Path | None, mode: str = "w") -> None:
    """Log to the terminal, and to a file; of several processes the first alone."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    if log_file is not None and is_first():
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, mode=mode, encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # Of a full disk the command tells, not each line that can't be added to the log there.
    logging.raiseExceptions = False
    log.handlers.clear()
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(logging.INFO if is_first() else logging.WARNING)
    log.propagate = False


def is_first() -> bool:
    """Whether this is the process that writes and tells: of those that torchrun starts, one."""
    return os.environ.get("RANK", "0") == "0"


def tell(level: int, error: Exception | str) -> None:
    """Say why a command ends, in one line."""
    line = f"jaisp: {' '.join(str(error).split())}"
    if log.handlers:
        log.log(level, line)
    else:
        print(line, file=sys.stderr)
