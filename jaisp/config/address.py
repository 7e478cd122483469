"""What stands elsewhere, as a config names it."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

LONGEST = 4096


def _no_address(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError("an address that is read from begins with http://, https:// or s3://")
    return value


# What a server answers.
Served = Annotated[str, Field(pattern=r"^https?://[^/\s]", max_length=LONGEST)]
# A file or a folder elsewhere: at a server, or in a public bucket.
Address = Annotated[str, Field(pattern=r"^(https?|s3)://[^/\s]", max_length=LONGEST)]
# A path on this machine: what looks like an address is not meant as one.
LocalPath = Annotated[Path, BeforeValidator(_no_address)]
