"""What a run was made with: config, versions, tiles, times."""

import csv
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import jaisp
from jaisp.archives.tile import Tile
from jaisp.config import Config, stage_hash, stage_version

PACKAGES = (
    "torch", "numpy", "scipy", "astropy", "zarr", "numba", "reproject", "sep", "galsim",
    "scikit-learn", "safetensors", "pydantic", "snakemake", "matplotlib",
)  # fmt: skip
STAGES = ("simulate", "plan", "fetch", "warp", "publish", "train", "embed", "evaluate", "report")
SECRET = re.compile(r"(token|password|passwd|secret|api_?key|credential|authorization)", re.I)
LONGEST_LIST = 400


@dataclass(frozen=True)
class Stage:
    """One stage: hashes of its config and code, and how long its jobs took, if it was timed."""

    name: str
    config_hash: str
    version: str
    jobs: int
    seconds: float | None
    memory_mb: float | None

    @property
    def time(self) -> str:
        """Summed wall time of the jobs, as a person says it."""
        if self.seconds is None:
            return "–"
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes:02d} min"
        return f"{minutes} min {seconds:02d} s" if minutes else f"{self.seconds:.1f} s"


@dataclass(frozen=True)
class SurveyTiles:
    """The tiles of one survey: how many files, and how many of these have a checksum.

    releases: what their archive says of where they come from.
    """

    survey: str
    tiles: int
    files: int
    checksums: int
    releases: str
    ids: list[str]


def versions() -> dict[str, str]:
    """Version of JAISP, of Python and of the main packages that are installed."""
    found = {"jaisp": jaisp.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def resolved_config(config: Config) -> str:
    """The config as YAML with every default spelled out, without secrets and local folders."""
    content = config.model_dump(mode="json")
    content.pop("data", None)
    return yaml.safe_dump(_redacted(content), sort_keys=False, allow_unicode=True, width=90)


def stages(config: Config) -> list[Stage]:
    """Every stage, with the times that the workflow measured, if it did."""
    timed = _benchmarks(config.results / "benchmarks")
    rows = []
    for name in STAGES:
        jobs = timed.get(name, [])
        seconds = [float(job["s"]) for job in jobs]
        memory = [float(job["max_rss"]) for job in jobs if _is_number(job.get("max_rss"))]
        rows.append(
            Stage(
                name,
                stage_hash(config, name),
                stage_version(name),
                len(jobs),
                sum(seconds) if seconds else None,
                max(memory) if memory else None,
            )
        )
    return rows


def tiles_by_survey(config: Config, tiles: Iterable[Tile]) -> list[SurveyTiles]:
    """Counts and names of the tiles of every survey."""
    known = list(tiles)
    rows = []
    for survey in config.surveys:
        own = [tile for tile in known if tile.survey == survey]
        planes = [p for t in own for p in (t.science, t.noise, t.mask, t.psf) if p is not None]
        files = {str(plane.path): plane.sha256 for plane in planes}
        ids = sorted(f"{tile.band} {_redacted(tile.id)}" for tile in own)
        checksums = sum(map(bool, files.values()))
        rows.append(
            SurveyTiles(survey, len(own), len(files), checksums, _releases(own), ids[:LONGEST_LIST])
        )
    return rows


def _releases(tiles: list[Tile]) -> str:
    """The releases of all tiles, and the days on which these came out."""
    named = {tile.origin.get("release") or tile.origin.get("obs_collection") for tile in tiles}
    days = sorted({tile.origin.get("obs_release_date", "")[:10] for tile in tiles} - {""})
    names = sorted(name for name in named if name)
    told = [*names, *(["–".join(dict.fromkeys([days[0], days[-1]]))] if days else [])]
    return ", ".join(told)


def _benchmarks(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of Snakemake's benchmark files, by the stage that their path begins with."""
    found: dict[str, list[dict[str, str]]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".tsv", ".txt")):
        words = re.split(r"[^a-z]+", path.relative_to(folder).as_posix())
        stage = next((word for word in words if word in STAGES), None)
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        if stage is not None:
            found.setdefault(stage, []).extend(row for row in rows if _is_number(row.get("s")))
    return found


def _is_number(text: str | None) -> bool:
    try:
        return float(text or "nan") == float(text or "nan")
    except ValueError:
        return False


def _redacted(content: Any, key: str = "") -> Any:
    if isinstance(content, dict):
        return {name: _redacted(value, str(name)) for name, value in content.items()}
    if isinstance(content, list):
        return [_redacted(value, key) for value in content]
    if isinstance(content, str):
        # `token_env` names a variable, which is no secret; its value never is in a config.
        if SECRET.search(key) and not key.endswith(("_env", "_arcsec")):
            return "(not shown)"
        # Addresses may carry a name and password, or a signature.
        content = re.sub(r"(:/+)[^/@\s]+@", r"\1", content)
        return re.sub(r"(:/+[^?\s]+)\?\S*", r"\1", content)
    return content
