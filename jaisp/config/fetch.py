"""Config section `fetch`."""

from pydantic import Field

from jaisp.config.address import Served
from jaisp.config.section import Section


class FetchConfig(Section):
    """How files are got from elsewhere."""

    concurrent: int = Field(
        8, ge=1, description="Files that a job, or `jaisp fetch` by itself, gets at a time."
    )
    per_host: int = Field(
        4, ge=1, description="Files that all jobs of this machine get from one host at a time."
    )
    attempts: int = Field(
        6, ge=1, description="Tries in a row that bring nothing before a file is given up."
    )
    timeout_s: float = Field(60.0, gt=0.0, description="Seconds without a byte that end a try.")
    most_bytes: int = Field(
        20_000_000_000,
        gt=0,
        description="A file longer than this, as it is or unpacked, is refused.",
    )
    s3_endpoint: Served | None = Field(
        None,
        description="Address of another store for `s3://` than Amazon's, whose buckets are folders "
        "there; also of a region of Amazon's, https://s3.REGION.amazonaws.com.",
    )
    private_hosts: list[str] = Field(
        [],
        description="Names of hosts in private networks to which services and redirects may lead.",
    )
