"""What the Snakefile needs to know of a run before the first job: config, jobs, hashes, lock."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jaisp.archives import find_tiles
from jaisp.archives.files import local_files
from jaisp.blocks import cell_batches
from jaisp.config import (
    Config,
    batch_hash,
    dump_config,
    load_config,
    stage_hash,
    stage_version,
)
from jaisp.config.evaluate import PARTS
from jaisp.config.site import Site, read_site
from jaisp.disk import disk_error
from jaisp.errors import UserError
from jaisp.fetch import BATCHES
from jaisp.files import hold_run, write_text
from jaisp.inject.names import sky_names
from jaisp.sky import Cell, cells


@dataclass(frozen=True)
class Run:
    """A run as the rules see it."""

    config: Config
    sky_cells: list[Cell]
    cell_batches: dict[str, list[Cell]]

    @property
    def results(self) -> str:
        """Folder of the run's results."""
        return str(self.config.results)

    @property
    def config_path(self) -> str:
        """The resolved config, which every job reads."""
        return f"{self.results}/config.yaml"

    @property
    def cells(self) -> list[str]:
        """Names of the jobs of a survey: a cell each, or of a wide sky blocks of cells."""
        return list(self.cell_batches)

    @property
    def surveys(self) -> list[str]:
        """Names of the surveys."""
        return list(self.config.surveys)

    @property
    def batches(self) -> list[int]:
        """Numbers of the fetch jobs."""
        return list(range(BATCHES))

    @property
    def parts(self) -> list[str]:
        """Names of the parts that are measured by themselves."""
        return list(PARTS)

    @property
    def skies(self) -> list[str]:
        """Names of the skies with known answers."""
        return sky_names(self.config, self.sky_cells)

    @property
    def local_files(self) -> list[str]:
        """Images already at hand: touching one plans the run anew."""
        return [str(path) for path in local_files(self.config)]

    @property
    def is_simulated(self) -> bool:
        """Whether any survey's tiles are made rather than found."""
        return any(s.archive.kind == "simulated" for s in self.config.surveys.values())

    def receipt(self, name: str) -> str:
        """Path of a receipt, `STAGE/NAME`."""
        return f"{self.results}/receipts/{name}.json"

    def hash(self, stage: str) -> str:
        """What a stage's results depend on: its config sections and its code."""
        return f"{stage_hash(self.config, stage)}-{stage_version(stage)}"

    def batch_hash(self, cell: str, survey: str) -> str:
        """What the store's groups of one job depend on."""
        own = batch_hash(self.config, survey, self.cell_batches[cell])
        return f"{own}-{stage_version('warp')}"


def prepare(
    configfiles: Sequence[Path | str], overrides: Mapping[str, Any], *, jobs_run_here: bool
) -> Run:
    """Read the config, take the run's lock and write the resolved config where jobs read it.

    `jobs_run_here` is false for a dry run and inside a job that a cluster started, which take no
    lock. What the user did wrong ends the process here: one line, exit status 2.
    """
    try:
        if len(configfiles) > 1:
            raise UserError("--configfile: give one file; a run has one config")
        config = load_config(_as_shown(Path(configfiles[0])), _nested(overrides))
        for survey, content in config.surveys.items():
            if content.archive.kind == "files":
                find_tiles(config, survey)
        sky_cells = cells(config)
        if jobs_run_here:
            _take_lock(config)
        path = config.results / "config.yaml"
        text = dump_config(config)
        if not _is_held(config) and not (path.is_file() and path.read_text("utf-8") == text):
            write_text(path, text)
    except UserError as error:
        end_with(str(error))
    except OSError as error:
        message = disk_error(error)
        if message is None:
            raise
        end_with(message)
    return Run(config, sky_cells, cell_batches(sky_cells, len(config.surveys)))


def site_or_end() -> Site:
    """The cluster that a run's jobs go to; a mistake in its file ends the process: one line."""
    try:
        return read_site()
    except UserError as error:
        end_with(str(error))


def end_with(message: str) -> NoReturn:
    """Print one line and leave with status 2, past every handler that would add a traceback."""
    print(f"jaisp: {message}", file=sys.stderr)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(2)


def user_error(logs: Sequence[str]) -> str | None:
    """The line with which a job told the user what to mend, from the workflow's logs.

    They show the log of a failed job, where such a line is an error's.
    """
    for log in logs:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in reversed(Path(log).read_text("utf-8").splitlines()):
                _, found, message = line.partition(" ERROR jaisp: ")
                if found:
                    return message
    return None


_lock: int | None = None


def _take_lock(config: Config) -> None:
    global _lock
    # Held until this process ends; the kernel gives it back however that comes about.
    _lock = hold_run(config.results)


def _is_held(config: Config) -> bool:
    """Whether another process works on this run: its config is then left as it is."""
    path = config.results / ".lock"
    if _lock is not None or not path.exists():
        return False
    with path.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _as_shown(path: Path) -> Path:
    """The path as the user would write it from here."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Command-line values, `key=value`: dots lead into sections, text that is YAML is read."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = yaml.safe_load(value) if isinstance(value, str) and value else value
    return nested
