"""What stands elsewhere, as a config names it."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

LONGEST = 4096
NO_USER = "an address has no user in it: say who you are with login_env"


def _no_address(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ValueError("an address that is read from begins with http://, https:// or s3://")
    return value


def _has_a_host(value: str) -> str:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 (it is what fails)
    except ValueError as error:
        raise ValueError(f"no address ({error})") from None
    # Addresses stand in logs and tables.
    if parts.username is not None:
        raise ValueError(NO_USER)
    return value


# What a server answers.
Served = Annotated[
    str, Field(pattern=r"^https?://[^/\s]", max_length=LONGEST), AfterValidator(_has_a_host)
]
# A file or a folder elsewhere: at a server, or in a public bucket.
Address = Annotated[
    str, Field(pattern=r"^(https?|s3)://[^/\s]", max_length=LONGEST), AfterValidator(_has_a_host)
]
# A path on this machine: what looks like an address is not meant as one.
LocalPath = Annotated[Path, BeforeValidator(_no_address)]
