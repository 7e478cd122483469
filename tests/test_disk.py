"""Disks that are full or read-only, as libraries tell of them."""

import errno
import os

import pytest

from jaisp.disk import disk_error
from jaisp.files import write_text

WRITTEN = (
    'RESOURCE_EXHAUSTED: Error writing local file "/r/flux/c/0": Failed to write 301696 bytes to '
    "file 3: No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "x", "a.json"), "a.json: the disk is full; make room"),
        (OSError(errno.EDQUOT, "x"), "your quota on this disk is used up"),
        (PermissionError(errno.EACCES, "x", "a"), "a: not allowed"),
        (OSError("Not enough space on disk: requested 90, available 20."), "the disk is full"),
        (OSError("4096 requested and 3376 written"), "the disk is full"),
        (ValueError(WRITTEN), "/r/flux/c/0: the disk is full"),
        (
            RuntimeError("open failed with strerror: Read-only file system"),
            "this disk is read-only",
        ),
    ],
)
def test_a_disk_at_the_bottom_of_an_error_is_told(error, line):
    assert disk_error(error).startswith(line)


def test_an_error_that_comes_from_another_tells_of_that():
    later = RuntimeError("unexpected pos 704 vs 598")
    later.__context__ = OSError(errno.ENOSPC, "x", "checkpoint.pt")
    assert disk_error(later).startswith("checkpoint.pt: the disk is full")


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "x")])
def test_other_errors_are_nothing_of_a_disk(error):
    assert disk_error(error) is None


def test_a_write_that_fails_names_its_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"notes\.txt"):
        write_text(tmp_path / "notes.txt", "x")
    assert list(tmp_path.iterdir()) == []
