"""What differs from cluster to cluster: read by `profiles/slurm/config.yaml` alone."""

import os
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from jaisp.config.load import first_problem, read_mapping
from jaisp.config.section import Section
from jaisp.errors import UserError

SITE_VARIABLE = "JAISP_SITE"
PLACE = Path("profiles/slurm/site.yaml")

# Names are put into sbatch's options, and Snakemake reads values as Python.
Name = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_.,-]*$")


class Site(Section):
    """A cluster under Slurm. `docs/clusters.md` and `profiles/slurm/site.yaml` explain the keys."""

    partition: str | None = Name
    gpu_partition: str | None = Name
    account: str | None = Name
    qos: str | None = Name
    accounting: bool = True
    jobs: int = Field(100, ge=1)
    cores: int = Field(16, ge=1)
    memory_gib: int = Field(64, ge=1)
    gpus: int = Field(1, ge=0)
    gpu_model: str | None = Name
    nodes: int = Field(1, ge=1)
    processes: int | None = Field(None, ge=1)
    first_check_s: int = Field(40, ge=1)

    @model_validator(mode="after")
    def _is_possible(self) -> "Site":
        if self.account and not self.accounting:
            raise ValueError("account: a cluster without accounting has none; make it null")
        if self.gpu_model and not self.gpus:
            raise ValueError("gpu_model: there are no GPUs (gpus: 0); make it null")
        if self.ranks % self.nodes:
            raise ValueError(
                f"nodes: {self.ranks} processes of training can't be spread evenly over "
                f"{self.nodes} nodes; give another number of nodes, gpus or processes"
            )
        if self.gpus and self.processes:
            raise ValueError("processes: with GPUs there is one a GPU; make it null, or gpus: 0")
        return self

    @property
    def ranks(self) -> int:
        """Processes of training."""
        return self.processes or max(self.gpus, 1)

    @property
    def ranks_a_node(self) -> int:
        """Processes of training on each node."""
        return self.ranks // self.nodes


def read_site() -> Site:
    """The site of JAISP_SITE, else of `profiles/slurm` here, else beside this package.

    Raises UserError, in one line that names the file and the key.
    """
    beside = Path(__file__).resolve().parents[2] / PLACE
    named = os.environ.get(SITE_VARIABLE)
    path = Path(named) if named else PLACE if PLACE.is_file() else beside
    try:
        return Site.model_validate(read_mapping(path))
    except ValidationError as error:
        problem = first_problem(error, keys="docs/clusters.md")
        raise UserError(f"{path}: {problem}") from None
