"""What a stage's results depend on, as short hashes: config sections and the stage's code."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaisp.config.root import Config

PACKAGE = Path(__file__).parent.parent

# The sections that each stage reads itself; what earlier stages read reaches it as input files.
SECTIONS = {
    "simulate": ("sky", "simulate"),
    "plan": ("sky", "cell_order", "patch"),
    "fetch": (),
    "warp": ("patch", "warp", "store"),
    "publish": ("sky", "cell_order", "patch", "split"),
    "inject": ("inject",),
    "train": ("model", "train"),
    "embed": (),
    "evaluate": ("evaluate",),
    "report": (),
}

# Of a survey's own section: what leaves its pixels as they are.
LEFT_OUT = ("path", "root", "moc", "cloud_access", "token_env", "token_file", "login_env")

# The code whose change makes a stage's earlier results stale.
MODULES = {
    "simulate": ("simulate",),
    "plan": ("plan.py", "archives", "sky"),
    "fetch": ("fetch.py", "packed.py", "planes.py", "sky", "structure.py", "transfer"),
    "warp": (
        "warp",
        "packed.py",
        "sky",
        "store/codes.py",
        "store/encode.py",
        "store/layout.py",
        "store/writer.py",
    ),
    "publish": (
        "store/check.py",
        "store/codes.py",
        "store/encode.py",
        "store/layout.py",
        "store/publish.py",
        "store/reader.py",
        "store/writer.py",
        "sky",
    ),
    "inject": ("inject",),
    "train": (
        "model",
        "store/batches.py",
        "store/correlation.py",
        "store/dataset.py",
        "train",
    ),
    "embed": ("embedding.py", "embedding", "store/correlation.py"),
    "evaluate": ("evaluate", "store/correlation.py"),
    "report": ("report",),
    "ablations": ("ablations",),
}


@runtime_checkable
class CellLike(Protocol):
    """The part of a cell that enters hashes."""

    def identity(self) -> list[Any]:
        """Its name, tangent point and patches, as JSON values."""


def stage_hash(config: Config, stage: str) -> str:
    """Hash of the config that a stage reads.

    Paths and run names are left out: moving the data or the results makes nothing stale.
    """
    content: dict[str, Any] = {name: _section(config, name) for name in SECTIONS[stage]}
    if stage == "simulate":
        content["surveys"] = {
            name: {"bands": survey.bands, "archive": _plain(survey.archive)}
            for name, survey in config.surveys.items()
            if survey.archive.kind == "simulated"
        }
    if stage in ("plan", "fetch"):
        content["surveys"] = {name: _plain(s) for name, s in config.surveys.items()}
    if stage == "plan" and (there := _read_from_buckets(config)):
        content["cloud_access"] = there
    if stage in ("publish", "train"):
        content["grids"] = {n: (s.bands, config.grid(n)) for n, s in config.surveys.items()}
    return _digest(content)


def group_hash(config: Config, survey: str, cell: CellLike) -> str:
    """Hash that a store group carries: patch, cell and its own survey only.

    Adding a survey or a cell, or changing `train:`, leaves it as it is.
    """
    return batch_hash(config, survey, [cell])


def batch_hash(config: Config, survey: str, sky_cells: Sequence[CellLike]) -> str:
    """Hash of what a job's groups depend on; of one cell, its group's."""
    own = config.surveys[survey]
    content = {name: _section(config, name) for name in SECTIONS["warp"]}
    content |= {"survey": _plain(own), "name": survey, "grid": config.grid(survey)}
    identities = [cell.identity() for cell in sky_cells]
    content["cell"] = identities[0] if len(identities) == 1 else identities
    if own.archive.kind == "simulated":
        content["simulate"] = _section(config, "simulate")
    return _digest(content)


def _read_from_buckets(config: Config) -> list[str]:
    """Surveys whose plans hold other addresses of the same pixels."""
    return [n for n, s in config.surveys.items() if getattr(s.archive, "cloud_access", False)]


@cache
def stage_version(stage: str) -> str:
    """Hash of a stage's source files, so that an edit of the code reruns what it made."""
    files: list[Path] = []
    for name in MODULES[stage]:
        path = PACKAGE / name
        files += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return _digest({str(f.relative_to(PACKAGE)): f.read_text("utf-8") for f in files})


def _section(config: Config, name: str) -> Any:
    value = getattr(config, name)
    return [_plain(v) for v in value] if isinstance(value, list) else _plain(value)


def _plain(value: Any) -> Any:
    content = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return _without_paths(content)


def _without_paths(content: Any) -> Any:
    # Which files are read shows in their checksums, wherever they lie and whoever asks for them.
    if isinstance(content, dict):
        kept = {k: v for k, v in content.items() if k not in LEFT_OUT}
        return {k: _without_paths(v) for k, v in kept.items()}
    return [_without_paths(v) for v in content] if isinstance(content, list) else content


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
