"""What can go wrong that is not our fault, each told in one line."""


class UserError(Exception):
    """The user can mend this: the message names the file and key and says what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class TileError(Exception):
    """One tile is bad: it is set aside with this reason and the survey goes on."""
