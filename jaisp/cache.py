"""The cache of verified tiles, shared by all runs: one file a plane, named by its checksum."""

import os
import re
from pathlib import Path

CACHE_VARIABLE = "JAISP_CACHE"


def cache_folder() -> Path:
    """JAISP_CACHE, or ~/.cache/jaisp."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "jaisp").expanduser()


def cache_name(survey: str, sha256: str, name: str) -> str:
    """Where a file stands below the cache folder.

    The checksum makes it unique; of the file's own name only harmless characters stay, so that
    no name from outside can point elsewhere.
    """
    harmless = re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).name)[-80:].lstrip(".")
    return f"{survey}/{sha256[:2]}/{sha256[:32]}-{harmless}"
