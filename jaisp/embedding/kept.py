"""What a killed or repeated job finds whole and made from the same things, it keeps.

What each token grid and map was made from is noted out of Snakemake's sight, as the warp's groups
are: a job of many cells that was stopped goes on with the first that it lacks.
"""

import hashlib
import json
from pathlib import Path

from jaisp.config import Config, stage_version
from jaisp.files import folder_sha256, read_json, sha256, write_json

WEIGHTS = ("config.json", "model.safetensors")


def tokens_origin(config: Config, cell: str, survey: str) -> str:
    """Hash of all that a token grid depends on: code, model, and the bytes of the store's group."""
    model = config.results / "model"
    return _digest(
        {
            "code": [stage_version("embed"), stage_version("train")],
            "model": [sha256(model / name) for name in WEIGHTS],
            "group": folder_sha256(config.results / "patches.zarr" / cell / survey),
        }
    )


def map_origin(config: Config, cell: str, survey: str) -> str:
    """Hash of all that a map depends on: code, basis, and the bytes of tokens and sky."""
    return _digest(
        {
            "code": stage_version("embed"),
            "basis": sha256(config.results / "maps" / "basis.json"),
            "grid": folder_sha256(config.results / "embeddings.zarr" / cell / survey),
            "group": folder_sha256(config.results / "patches.zarr" / cell / survey),
        }
    )


def read_note(config: Config, kind: str, cell: str, survey: str) -> dict:
    """What was noted of a grid (`tokens`) or map (`maps`): `made_from`, `receipt`, `files`; or
    nothing."""
    path = _path(config, kind, cell, survey)
    return read_json(path) if path.is_file() else {}


def write_note(
    config: Config,
    kind: str,
    cell: str,
    survey: str,
    made_from: str,
    receipt: dict,
    files: dict[str, str] | None = None,
) -> None:
    """Note it, once all of it is in its place. files: checksums that the receipt lacks."""
    content = {"made_from": made_from, "receipt": receipt, "files": files or {}}
    write_json(_path(config, kind, cell, survey), content)


def _path(config: Config, kind: str, cell: str, survey: str) -> Path:
    return config.results / f".{kind}" / f"{cell}.{survey}.json"


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
