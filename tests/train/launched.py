"""The command line, in processes of which the last one does something to itself as a step begins.

HAPPENS=SIGNAL:STEP python tests/train/launched.py train --config F --processes 2
"""

import os
import signal
import sys

from jaisp.cli import main
from jaisp.train import loop
from jaisp.train.ranks import rank, ranks

if "RANK" in os.environ and "HAPPENS" in os.environ:
    name, at = os.environ["HAPPENS"].split(":")
    real = loop.Run._step

    def step(self: loop.Run, number: int) -> None:
        if number == int(at) and rank() == ranks() - 1:
            os.kill(os.getpid(), signal.Signals[name])
        real(self, number)

    loop.Run._step = step

if __name__ == "__main__":
    sys.exit(main())
