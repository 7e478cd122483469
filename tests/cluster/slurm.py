"""Slurm on this machine: a real controller and real nodes on loopback, for root on Debian 12.

    python -m tests.cluster.slurm start FOLDER [--nodes N]      and later
    python -m tests.cluster.slurm stop FOLDER

No systemd, no cgroups, no accounting; every node has a stand-in GPU. Jobs see the environment of
those who submit them. Debian packages: slurmctld slurmd slurm-client munge.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
# Snakemake's job step takes SLURM_CONF out of the environment: only this place is always read.
PLACE = Path("/etc/slurm")

CONFIG = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# Requeued jobs wait until their credential has expired: two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={port}
SrunPortRange={srun_ports}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
# Like cgroups, which containers don't have, and unlike linuxproc: signals go to a step's tasks,
# not to whatever these have started in sessions of their own.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
MinJobAge=600
KillWait=10
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} "
    "RealMemory={mib} Gres=gpu:1 State=UNKNOWN"
)


def is_installed() -> bool:
    return os.geteuid() == 0 and all(_program(name) for name in PROGRAMS)


@contextmanager
def slurm(folder: Path, nodes: int = 1) -> Iterator[None]:
    """A Slurm for as long as this lasts; folder: for what it writes."""
    start(folder, nodes)
    try:
        yield
    finally:
        stop(folder)


def start(folder: Path, nodes: int = 1) -> None:
    """Write the configuration, start the daemons, wait until every node is idle."""
    names = [f"node{k}" for k in range(nodes)]
    _write_config(folder, names)
    _start("munged", f"--socket={folder}/munge.socket", *_munge_files(folder))
    _start("slurmctld")
    for name in names:
        (folder / f"spool.{name}").mkdir(exist_ok=True)
        _start("slurmd", "-N", name)
    for _ in range(240):
        found = subprocess.run(["sinfo", "-hN", "-p", "main", "-o", "%T"], capture_output=True)
        if found.stdout.decode().split() == ["idle"] * nodes:
            return
        time.sleep(0.25)
    stop(folder)
    raise TimeoutError(f"Slurm did not come up; see {folder}/*.log")


def stop(folder: Path) -> None:
    """End all jobs, and the daemons that were started with this folder."""
    if (folder / "slurmctld.pid").exists():
        subprocess.run(["scancel", "--quiet", "--user", "root"], check=False)
        _wait_until(lambda: not _output("squeue", "-h"))
    for path in sorted(folder.glob("*.pid"), key=lambda path: path.name.startswith("munged")):
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)
            _wait_until(lambda path=path: not path.exists())
    for name in ("slurm.conf", "gres.conf"):
        if _is_ours(PLACE / name, folder):
            (PLACE / name).unlink()


def _write_config(folder: Path, names: list[str]) -> None:
    for path in (PLACE / name for name in ("slurm.conf", "gres.conf")):
        if path.exists() and not _is_ours(path, folder):
            raise FileExistsError(f"{path}: this machine has a Slurm of its own")
    (folder / "state").mkdir(parents=True, exist_ok=True)
    host, cores = socket.gethostname().partition(".")[0], os.cpu_count() or 1
    mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
    ports = _free_ports(1 + len(names) + 40)
    nodes = [
        NODE.format(name=name, host=host, port=port, cores=cores, mib=mib // len(names))
        for name, port in zip(names, ports[1:], strict=False)
    ]
    text = CONFIG.format(
        folder=folder,
        host=host,
        port=ports[0],
        srun_ports=f"{ports[-40]}-{ports[-1]}",
        nodes="\n".join(nodes),
    )
    (folder / "slurm.conf").write_text(text)
    gpus = [f"NodeName={name} Name=gpu File=/dev/null" for name in names]
    (folder / "gres.conf").write_text("\n".join(gpus) + "\n")
    PLACE.mkdir(exist_ok=True)
    for name in ("slurm.conf", "gres.conf"):
        (PLACE / name).unlink(missing_ok=True)
        (PLACE / name).symlink_to(folder / name)


def _munge_files(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = {"key": key, "pid": "munged.pid", "seed": "munge.seed", "log": "munged.log"}
    return [*(f"--{kind}-file={folder / name}" for kind, name in files.items()), "--force"]


def _start(name: str, *arguments: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
    done = subprocess.run(
        [_program(name) or name, *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(f"{name}: {done.stdout}{done.stderr}")


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _wait_until(condition) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.1)


def _is_ours(path: Path, folder: Path) -> bool:
    """Whether it is a link to this folder's file, or to one that is gone."""
    return path.is_symlink() and (path.readlink().parent == folder or not path.exists())


def _free_ports(count: int) -> list[int]:
    """So many ports in a row that nobody listens on."""
    for first in range(26817, 32000, count):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return list(range(first, first + count))
    raise OSError("no free ports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.action == "stop":
        stop(folder)
    elif not is_installed():
        sys.exit("Slurm needs root, and the packages slurmctld slurmd slurm-client munge")
    else:
        start(folder, options.nodes)


if __name__ == "__main__":
    main()
