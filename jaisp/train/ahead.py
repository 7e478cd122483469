"""What the next steps are made of, drawn by a thread while the device computes this one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Drawn = TypeVar("Drawn")

AHEAD = 2  # steps


def ahead(draw: Callable[[int], Drawn], steps: Iterable[int]) -> Iterator[Drawn]:
    """What `draw` gives of each step, in order, at most AHEAD steps early."""
    waiting: deque[Future[Drawn]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="draw") as thread:
        for step in steps:
            waiting.append(thread.submit(draw, step))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
