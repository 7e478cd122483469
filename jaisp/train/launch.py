"""Start the processes that train together: torchrun's on one machine, a job step's under Slurm.

Slurm signals the tasks of a job's steps and not what these have started, so that a training that is
to hear of its preemption has to be a step of its own, even of one process.
"""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from jaisp.errors import LAUNCHED, LOST, STOPPED, LostProcessError, StoppedError, UserError

log = logging.getLogger(__name__)

REQUEUE_S = 60  # within which Slurm ends a job that it has put back into the queue
# Each task becomes the rank that torchrun would have made of it.
AS_RANK = 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$0" "$@"'


def is_launched(processes: int) -> bool:
    """Whether so many processes have to be started, rather than this one go on."""
    return "RANK" not in os.environ and (processes > 1 or "SLURM_JOB_ID" in os.environ)


def launch(command: Sequence[str], processes: int, threads: int | None) -> int:
    """Run `command` in so many processes, each told its rank; returns their exit status.

    One that fails ends the others. Raises LostProcessError where one was killed, and StoppedError
    where they were told to stop: a job of Slurm is then back in the queue, if it may be.
    """
    os.environ[LAUNCHED] = "1"
    if "SLURM_JOB_ID" in os.environ:
        return _as_step(command, processes, threads)
    return _as_torchrun(command, processes)


def _as_torchrun(command: Sequence[str], processes: int) -> int:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it says of its workers is said here in one line. Each of its loggers has its own level.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException as received:
        if received.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise StoppedError(_stopped(received.sigval.name)) from None
    except ChildFailedError as failed:
        # Those that miss it may be found to have ended before it is.
        killed = [found for found in failed.failures.values() if found.exitcode < 0]
        first = killed[0] if killed else failed.get_first_failure()[1]
        return _status(first.exitcode, f"process {first.local_rank} of {processes}")
    return 0


def _as_step(command: Sequence[str], processes: int, threads: int | None) -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    hosts = _said("scontrol", "show", "hostnames", _of_job("%N")).split()
    if not hosts:
        raise UserError(
            f"train: squeue does not know Slurm's job {os.environ['SLURM_JOB_ID']}; "
            "outside of a job, unset SLURM_JOB_ID"
        )
    environment = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": _address(hosts[0]),
        "MASTER_PORT": str(port),
    }
    nodes = min(len(hosts), processes)
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={processes}"]
    step += [f"--ntasks-per-node={-(-processes // nodes)}", "--distribution=block"]
    step += [f"--cpus-per-task={threads or 1}", "--kill-on-bad-exit=1"]
    # Signals that come to this process's group are not for srun, which would end its tasks at once.
    started = subprocess.Popen(
        [*step, "sh", "-c", AS_RANK, *command], env=environment, start_new_session=True
    )
    told = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: told.append(number))
    try:
        status = started.wait()
    except KeyboardInterrupt:
        started.terminate()
        raise
    if status == STOPPED:
        queued = "it is back in the queue" if _requeue() else "submit it again"
        raise StoppedError(_stopped(f"Slurm's job {os.environ['SLURM_JOB_ID']}; {queued}"))
    return _status(status, f"one of {processes} processes")


def _requeue() -> bool:
    """Put this job back into the queue, unless it is being cancelled; it then ends here."""
    job = os.environ["SLURM_JOB_ID"]
    if _of_job("%T") != "RUNNING":
        return False
    log.info("train: stopped; job %s goes back into the queue", job)
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("train: scontrol requeue %s: %s", job, done.stderr.strip())
        return False
    time.sleep(REQUEUE_S)
    return True


def _of_job(field: str) -> str:
    """A field of this job, as squeue calls it."""
    job = os.environ["SLURM_JOB_ID"]
    return _said("squeue", "--noheader", "--jobs", job, "--format", field)


def _address(host: str) -> str:
    """Where the others find a node: not always by its name."""
    shown = _said("scontrol", "--oneliner", "show", "node", host)
    return dict(pair.partition("=")[::2] for pair in shown.split())["NodeAddr"]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _status(code: int, who: str) -> int:
    """The exit status of processes of which the first to fail ended with `code`."""
    # srun gives a signal as 128 + its number: of the first one, or of those that were ended.
    if code < 0 or code > 128 or code == LOST:
        name = f" ({signal.Signals(-code).name})" if code < 0 else ""
        raise LostProcessError(
            f"train: {who} was killed{name}, and the others were ended; "
            "the same command goes on from the last checkpoint"
        )
    if code == STOPPED:
        raise StoppedError(_stopped("its processes"))
    return code


def _stopped(cause: str) -> str:
    return f"train: told to stop ({cause}); the same command goes on from the last step"
