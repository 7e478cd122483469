"""At most so many transfers from a host at a time, of all processes of this machine."""

import fcntl
import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaisp.files import open_to_append

WAIT_S = 0.2


@contextmanager
def slot(folder: Path, host: str, count: int) -> Iterator[None]:
    """Hold one of a host's `count` slots; waits for one. The kernel frees those of the dead."""
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    numbers = list(range(count))
    while True:
        random.shuffle(numbers)
        for number in numbers:
            with open_to_append(folder / f".{name}.{number}.slot") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
        time.sleep(WAIT_S * (0.5 + random.random()))
