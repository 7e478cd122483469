"""A model on disk: model.safetensors, config.json and README.md."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from jaisp.errors import UserError
from jaisp.files import (
    read_json,
    remove_folder,
    replace_folder,
    sha256,
    write_json,
    write_text,
)
from jaisp.model.model import Architecture, Model

FORMAT = "jaisp-model-5"
CHECKSUM = "sha256"
REDO = "copy it again, or train it again (`snakemake -f train`)"


def save_model(model: Model, path: Path | str, card: str) -> None:
    """Write the folder `path` whole or not at all; `card` is the README of the model."""
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    remove_folder(partial)
    partial.mkdir(parents=True)
    try:
        tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
        # Not by safetensors' own hand, whose files nobody but their owner may read.
        (partial / "model.safetensors").write_bytes(save(tensors))
        about = {"format": FORMAT, **model.config.model_dump(mode="json")}
        write_json(partial / "config.json", about | {CHECKSUM: _checksum(partial, about)})
        write_text(partial / "README.md", card)
        replace_folder(partial, path)
    finally:
        remove_folder(partial)


def load_model(path: Path | str) -> Model:
    """Read the model in the folder `path`, ready for use on the CPU.

    Its weights are frozen, so that tokens are plain arrays: `requires_grad_(True)` to train it on.
    Raises UserError when the folder holds none, one that this version can't read, or a damaged one:
    a byte that has flipped, in the weights or beside them, is found by their checksum.
    """
    path = Path(path)
    content, written = _read_config(path)
    try:
        model = Model(Architecture(**content))
    except (ValidationError, KeyError) as error:
        raise UserError(f"{path}/config.json: {' '.join(str(error).split())}") from None
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path}/model.safetensors: does not fit config.json: {detail}") from None
    if written is not None and written != _checksum(path, {"format": FORMAT, **content}):
        raise UserError(f"{path}: damaged: not the bytes that were written; {REDO}")
    return model.eval().requires_grad_(False)


def _checksum(path: Path, about: dict[str, Any]) -> str:
    """One SHA-256 of the weights and of what the config tells of them."""
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    total.update(sha256(path / "model.safetensors").encode())
    return total.hexdigest()


def _read_config(path: Path) -> tuple[dict[str, Any], str | None]:
    """What the config tells, and the checksum: models of before there was one are taken as they
    are."""
    try:
        content = read_json(path / "config.json")
    except OSError:
        raise UserError(f"{path}: holds no model; train makes one") from None
    except ValueError:
        raise UserError(f"{path}/config.json: not JSON") from None
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(f"{path}/config.json: format {found!r}, expected {FORMAT!r}")
    return content, content.pop(CHECKSUM, None)
