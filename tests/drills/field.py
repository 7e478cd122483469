"""A two-patch field after each stage of its way, and commands that are run on copies of it."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import NoReturn

import yaml

from jaisp.files import folder_sha256, sha256
from tests.workflow.conftest import ROOT, TWO_PATCHES, snakemake

TRAIN = TWO_PATCHES["train"] | {"steps": 4, "checkpoint_every": 1}
CONFIG = TWO_PATCHES | {"run": "drill", "train": TRAIN}
RUN = Path("results") / "drill"
BEFORE = {"warp": "fetch", "publish": "warp", "train": "publish", "embed": "train"}
BEFORE |= {"evaluate": "inject"}
STAGES = ("simulate", "plan", "fetch", "warp", "publish", "train", "embed", "inject", "evaluate")
PYTHON = multiprocessing.get_context("forkserver")
COMMANDS = ("cli", "simulate", "warp", "inject.stage", "train", "embedding", "evaluate.stage")
PYTHON.set_forkserver_preload([__name__, *(f"jaisp.{name}" for name in COMMANDS)])


@dataclass(frozen=True)
class Said:
    """How a command ended, and every line that it printed or logged."""

    status: int
    lines: list[str]

    @property
    def line(self) -> str | None:
        """The one clear line that it ended in; None where that isn't how it ended."""
        ours = [line for line in self.lines if line.startswith("jaisp: ")]
        traced = any("Traceback" in line for line in self.lines)
        clear = self.status in (1, 2) and len(ours) == 1 and not traced
        return ours[0] if clear else None


class Place:
    """A folder with the field's config, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def results(self) -> Path:
        return self.folder / RUN

    @property
    def environment(self) -> dict[str, str]:
        # Where these modules come from, the commands do too.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        cache = str(self.folder / "cache")
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "JAISP_CACHE": cache}

    def start(self, *arguments: str) -> BaseProcess:
        """A command of `jaisp`, in a process that has imported everything already."""
        process = PYTHON.Process(target=run_command, args=(self.folder, arguments))
        process.start()
        return process

    def run(self, *arguments: str) -> Said:
        """A command of `jaisp`, to its end."""
        process = self.start(*arguments)
        process.join()
        assert process.exitcode is not None
        return self.said(process.exitcode)

    def said(self, status: int) -> Said:
        """What the last command said."""
        text = (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")
        return Said(status, text.splitlines())

    def start_snakemake(self, target: str, *options: str) -> subprocess.Popen:
        """Snakemake as a user would start it, and its jobs, in a process group of their own."""
        command = [*snakemake("Snakefile"), target, "--cores", "2", *options]
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                [*command, "--configfile", "config.yaml"],
                cwd=self.folder,
                env=self.environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def checksums(self) -> dict[str, str]:
        """Of all that a run is for, as far as it is there."""
        folders = [self.results / name for name in ("patches.zarr", "embeddings.zarr")]
        names = ("model/model.safetensors", "model/config.json", "history.jsonl", "metrics.json")
        files = [self.results / name for name in names]
        found = {path.name: folder_sha256(path) for path in folders if path.is_dir()}
        return found | {path.name: sha256(path) for path in files if path.is_file()}


class Field:
    """The undisturbed run: what it is after each stage, and how long each took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        home = Place(folder / "home")
        home.folder.mkdir(parents=True)
        (home.folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        for stage in STAGES:
            began = time.monotonic()
            said = home.run(stage)
            self.seconds[stage] = time.monotonic() - began
            assert said.status == 0, said.lines
            # What the cache links to is copied, so that a drill harms its own copy alone.
            shutil.copytree(home.folder, folder / stage)
        self.home = home

    def after(self, stage: str) -> Place:
        """The field after a stage: not to be changed."""
        return Place(self.folder / stage)

    def copy(self, stage: str, folder: Path) -> Place:
        """A copy of the field after a stage."""
        shutil.copytree(self.folder / stage, folder, dirs_exist_ok=True)
        return Place(folder)

    @cached_property
    def in_training(self) -> Place:
        """The field with a training that was killed after its first checkpoints."""
        place = self.copy("publish", self.folder / "in_training")
        process = place.start("train")
        checkpoint = place.results / ".partial" / "train" / "checkpoint.pt"
        wait_until(lambda: checkpoint.exists() or not process.is_alive())
        process.kill()
        process.join()
        assert checkpoint.exists(), place.said(0).lines
        return place


Drill = Callable[[Field, Path, Random], dict]


def run_command(folder: Path, arguments: tuple[str, ...]) -> None:
    """What a process does: one command of `jaisp`, as if typed in `folder`."""
    from jaisp.cli import main

    os.chdir(folder)
    os.environ["JAISP_CACHE"] = str(folder / "cache")
    said = os.open("said.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["jaisp", *arguments, "--config", "config.yaml"]
    main()


def run_forked(folder: Path, arguments: tuple[str, ...]) -> Said:
    """A command of `jaisp` in a child of this process, which sees what this one has mounted."""
    child = os.fork()
    if child == 0:
        _run_and_exit(folder, arguments)
    _, status = os.waitpid(child, 0)
    return Place(folder).said(os.waitstatus_to_exitcode(status))


def _run_and_exit(folder: Path, arguments: tuple[str, ...]) -> NoReturn:
    import traceback

    status = 1
    try:
        run_command(folder, arguments)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_until(happens: Callable[[], bool]) -> None:
    """Look often."""
    while not happens():
        time.sleep(0.002)


def outcome(did: str, failed: Said, resumed: dict[str, str], expected: dict[str, str]) -> dict:
    """What a repetition came to.

    failed: how the command ended that met the failure. resumed, expected: checksums of the results
    after all, and of the undisturbed ones.
    """
    equal = all(resumed.get(name) == value for name, value in expected.items())
    row = {"did": did, "status": failed.status, "line": failed.line, "equal": equal}
    # It has to end well, or be killed, or say in one line why not.
    clear = failed.status <= 0 or failed.line is not None
    return row if clear else row | {"said": failed.lines[-20:]}
