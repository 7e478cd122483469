"""Every drill by name: what fails, and whether this machine can make it fail."""

from dataclasses import dataclass

from tests.cluster.slurm import PLACE, is_installed
from tests.drills import damaged, disks, killed, slurm_jobs, twice
from tests.drills.field import Drill


@dataclass(frozen=True)
class Listed:
    """A drill.

    needs: `slurm`, `mounts` or nothing. alike: the tests that try the like once, in seconds, where
    there are any.
    """

    failure: str
    run: Drill
    needs: str = ""
    alike: str = ""


DRILLS = {
    "job": Listed("kill −9 of a job", killed.job),
    "snakemake": Listed(
        "kill −9 of Snakemake, its jobs going on",
        killed.snakemake,
        alike="tests/workflow/test_dag.py",
    ),
    "rank": Listed(
        "kill −9 of one of two processes that train together",
        killed.rank,
        alike="tests/train/test_stop.py",
    ),
    "slurm_job": Listed(
        "kill −9 of a job of Slurm",
        slurm_jobs.killed_job,
        "slurm",
        alike="tests/cluster/test_slurm.py",
    ),
    "node": Listed(
        "a node drained, or lost",
        slurm_jobs.drained_node,
        "slurm",
        alike="tests/cluster/test_slurm.py",
    ),
    "full_store": Listed("disk full while the store is written", disks.store_write, "mounts"),
    "full_checkpoint": Listed("disk full at a checkpoint", disks.checkpoint, "mounts"),
    "full_embedding": Listed("disk full while embedding", disks.embedding, "mounts"),
    "read_only": Listed("read-only results", disks.read_only, "mounts"),
    "twice": Listed(
        "two Snakemakes at once on the same results",
        twice.two_snakemakes,
        alike="tests/workflow/test_dag.py",
    ),
    "removed": Listed("a store group removed after publishing", damaged.removed_group),
    "shard": Listed("a flipped byte in a shard of the store", damaged.shard),
    "checkpoint": Listed("a flipped byte in a checkpoint", damaged.checkpoint),
    "model": Listed("a flipped byte in the trained model", damaged.model),
    "tile": Listed("a flipped byte in a tile of the cache", damaged.tile),
}


def lacking(name: str) -> str | None:
    """Why this machine can't make it fail that way; None where it can."""
    needs = DRILLS[name].needs
    if needs == "slurm" and (PLACE / "slurm.conf").exists():
        return f"{PLACE}/slurm.conf: this machine has a Slurm already"
    if needs == "slurm" and not is_installed():
        return "no Slurm: root, and Debian's slurmctld slurmd slurm-client munge, are needed"
    if needs == "mounts" and not disks.may_mount():
        return "no mounts of its own: root, and a container that lets it mount, are needed"
    return None
