"""Jobs in processes of their own: all done, or one clear reason why not."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial

import pytest

from jaisp.errors import LostProcessError, UserError
from jaisp.together import side_by_side

QUIET = nullcontext(lambda: None)


def leave(path, after=lambda: None):
    after()
    path.write_text(str(os.getpid()))


def raised(error):
    raise error


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_all_are_done_each_in_a_process_of_its_own(tmp_path):
    looks = []
    jobs = [partial(leave, tmp_path / str(n), partial(time.sleep, 0.7)) for n in range(3)]
    side_by_side(jobs, nullcontext(lambda: looks.append(1)))
    numbers = {(tmp_path / str(n)).read_text() for n in range(3)}
    assert len(numbers) == 3
    assert str(os.getpid()) not in numbers
    assert len(looks) >= 2


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        (partial(raised, UserError("mend it")), UserError, "mend it"),
        (partial(raised, OSError(28, "No space", "here")), UserError, "here: the disk is full"),
        (killed, LostProcessError, r"ended \(-9\).*goes on from here"),
        (partial(raised, ZeroDivisionError()), LostProcessError, r"ended \(1\)"),
    ],
)
def test_where_one_fails_the_others_are_ended(tmp_path, job, error, words):
    slow = partial(leave, tmp_path / "late", partial(time.sleep, 60))
    start = time.monotonic()
    with pytest.raises(error, match=words):
        side_by_side([slow, job], QUIET)
    assert time.monotonic() - start < 50
    assert not (tmp_path / "late").exists()


SCRIPT = """
import os, time
from contextlib import nullcontext
from jaisp.together import side_by_side

def job():
    print(os.getpid(), flush=True)
    time.sleep(60)

side_by_side([job], nullcontext(lambda: None))
"""


def test_they_end_with_the_process_that_started_them():
    started = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline().strip().isdigit()
    start = time.monotonic()
    started.kill()
    started.wait()
    # The end of what they write to: nobody is left that holds it open, a minute too early.
    assert started.stdout.read() == ""
    assert time.monotonic() - start < 50
    started.stdout.close()
