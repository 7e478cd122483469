"""Memory that is kept for the next large array instead of being given back."""

import ctypes
import sys

# Of glibc's mallopt(3), and the largest array that is kept.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Let this process keep what it frees. Elsewhere than on Linux with glibc, nothing changes.

    By default, each array above 32 MB is memory that the kernel clears anew, page by page: a
    tenth of the time of a network that goes from one large array to the next.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
