"""Read a config file, say in one line what is wrong with it, and write it back resolved."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from jaisp.config.root import Config
from jaisp.errors import UserError

DATA_VARIABLE = "JAISP_DATA"
LOGIN = re.compile(r"://[^/\s]*@")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error rather than a silent choice."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    merge = "tag:yaml.org,2002:merge"
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != merge]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"key `{key}` stands twice", node.start_mark
            )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def load_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and check a config file.

    Relative paths start from `data`: the override's, else an absolute one in the file, else
    the environment's JAISP_DATA, else the file's own, from the folder of the file.

    Raises UserError, in one line that names the file and the key.
    """
    path = Path(path)
    content = read_mapping(path)
    return parse_config(content, path, overrides)


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file of keys. Raises UserError for a file that isn't one."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{path}: can't be read ({reason}); name a config file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config is a mapping of keys; see config/demo.yaml")
    return content


def parse_config(
    content: Mapping[str, Any], path: Path, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Check a config that was read from `path`; see `load_config`."""
    overrides = dict(overrides or {})
    merged = {**content, **overrides}
    merged["data"] = str(_data_folder(content.get("data"), overrides.get("data"), path))
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML: what a run was made with, every default spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _data_folder(in_file: object, override: object, path: Path) -> Path:
    if override is not None:
        return Path(str(override)).expanduser().absolute()
    own = Path(str(in_file)).expanduser() if in_file is not None else Path()
    if own.is_absolute():
        return own
    if variable := os.environ.get(DATA_VARIABLE):
        return Path(variable).expanduser().absolute()
    return (path.parent / own).absolute()


def first_problem(error: ValidationError, keys: str = "config/schema.json") -> str:
    """The first problem that pydantic found, as `key: what is wrong; what to do`.

    keys: the file that lists them.
    """
    problems = error.errors()
    # A value that fits no member of a union gives one problem a member; the deepest one names
    # the key that the user meant.
    problem = max(problems, key=lambda p: (p["type"] == "extra_forbidden", len(p["loc"])))
    key = ".".join(str(part) for part in _readable(problem["loc"])) or "config"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    match problem["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; remove it or see {keys}{more}"
        case "missing":
            return f"{key}: missing; add this key{more}"
        case "union_tag_invalid":
            expected = problem["ctx"]["expected_tags"]
            return f"{key}.kind: {problem['ctx']['tag']!r} is unknown; use one of {expected}{more}"
        case "union_tag_not_found":
            return f"{key}.kind: missing; add this key{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):
        # Of a section as a whole: the message names what doesn't fit together.
        return f"{key}: {message[0].lower()}{message[1:]}{more}"
    # Whoever put a login into an address doesn't want it in a log.
    shown = LOGIN.sub("://…@", repr(problem["input"]))
    return f"{key}: {message[0].lower()}{message[1:]}, not {shown:.60}{more}"


def _readable(location: tuple) -> list:
    """Drop the names of union members, which pydantic puts into the path to a value."""
    types = {"float", "int", "str", "Region", "Moc", "PsfStamp", "PsfShape", "WcsGiven"}
    types |= {"Corners", "Centre"}
    prefixes = ("list[", "function-", "constrained-", "literal[")
    parts: list = []
    for part in location:
        # `archive` and `noise` are told apart by their kind, which follows them in the path.
        is_kind = bool(parts) and parts[-1] in ("archive", "noise") and part != "kind"
        is_type = part in types or (isinstance(part, str) and part.startswith(prefixes))
        if not is_type and not (is_kind and part in KINDS):
            parts.append(part)
    return parts


KINDS = {
    "files",
    "sia2",
    "simulated",
    "template",
    "rms",
    "variance",
    "inverse_variance",
    "estimate",
}
