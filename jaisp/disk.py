"""Disks that are full or may not be written, whichever library says so and however."""

import errno
import os
import re

MEND = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "your quota on this disk is used up; make room",
    errno.EROFS: "this disk is read-only; make it writable, or work in another folder",
    errno.EACCES: "not allowed; change the rights of the folder, or work in another one",
}
# Libraries in C++ and Rust raise errors of their own, with the system's words in them.
WORDS = {os.strerror(number): number for number in MEND if number != errno.EACCES}
# Numpy and astropy tell of a file that could not be written to its end in their own.
WORDS |= dict.fromkeys((r"\d+ requested and \d+ written", "Not enough space on disk"), errno.ENOSPC)


def disk_error(error: BaseException) -> str | None:
    """What the user can do about an error that a disk is at the bottom of, in one line; or None.

    Files are written beside their place and renamed, so that what was whole before still is.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        number = _number(link)
        if number is not None:
            return f"{_place(link)}{MEND[number]}; the same command then goes on from here"
        link = link.__cause__ or link.__context__
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in MEND else None
    text = str(error)
    return next((number for words, number in WORDS.items() if re.search(words, text)), None)


def _place(error: BaseException) -> str:
    """The file, where the error names it."""
    name = getattr(error, "filename", None)
    if name is None and (named := re.search(r'local file "([^"]+)"', str(error))):
        name = named[1]
    return "" if name is None else f"{name}: "
