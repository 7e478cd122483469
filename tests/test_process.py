"""What is set of a command's own process."""

import subprocess
import sys

import pytest

FREED_AND_ASKED_AGAIN = """
import resource
import numpy as np
from jaisp.process import keep_memory

keep_memory()
np.ones(2**23).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(2**23).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(program: str) -> int:
    """Page faults that a program counts, in a process of its own."""
    command = [sys.executable, "-c", program]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's alone")
def test_freed_memory_serves_the_next_large_array():
    plain = FREED_AND_ASKED_AGAIN.replace("\nkeep_memory()\n", "\n")
    assert plain != FREED_AND_ASKED_AGAIN
    assert faults(FREED_AND_ASKED_AGAIN) < 0.1 * faults(plain)
