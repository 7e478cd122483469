"""A Slurm of two nodes on this machine, for all tests of this folder."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.slurm import is_installed, slurm

LACKING = "no Slurm: root, and Debian's slurmctld slurmd slurm-client munge, are needed"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not is_installed():
        if os.environ.get("JAISP_REQUIRE_REAL_DATA"):
            pytest.fail(LACKING)
        pytest.skip(LACKING)
    with slurm(tmp_path_factory.mktemp("slurm"), nodes=2):
        yield
