"""What can go wrong that is not our fault, each told in one line."""


class UserError(Exception):
    """The user can mend this: the message names the file and key and says what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class TileError(Exception):
    """One tile is bad: it is set aside with this reason and the survey goes on."""


class StoppedError(Exception):
    """A signal told this process to stop: what it has done is kept, and the same command goes on.

    The command line prints it without a traceback and exits with status STOPPED.
    """


class LostProcessError(Exception):
    """A process that worked together with others has died; the same command goes on.

    The command line prints it without a traceback and exits with status 1; where `jaisp train`
    started several, those that are left end with status LOST, and it tells.
    """


def reason(error: Exception) -> str:
    """The first words of an error of somebody else's, on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else f"{words[:119]}…"


LAUNCHED = "JAISP_LAUNCHED"  # set for processes of which the one that started them tells
LOST = 76
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
