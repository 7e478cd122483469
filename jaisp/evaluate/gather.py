"""What the parts found, put together: metrics.json and outcomes.npz.

It takes no network and no plot, so that it starts at once.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaisp.config import Config, stage_hash
from jaisp.config.evaluate import PARTS
from jaisp.errors import UserError
from jaisp.evaluate.outcomes import NAME as OUTCOMES
from jaisp.evaluate.outcomes import Outcomes, sky_of
from jaisp.evaluate.summary import tell
from jaisp.files import read_json, receipt_path, sha256, write_json
from jaisp.store.reader import open_store

OVERVIEW = "overview"  # the report's own picture


def gather_evaluated(config: Config, names: Iterable[str] = PARTS) -> dict[str, Any]:
    """Write metrics.json and outcomes.npz in results/RUN/ from what the parts found; returns the
    content of metrics.json. names: the parts that were measured.

    Plots of an earlier evaluation go. Raises UserError when a part is missing.
    """
    from jaisp import __version__

    parts = [_part(config, name) for name in names]
    metrics = {
        "run": config.run,
        "version": __version__,
        "config_hash": stage_hash(config, "evaluate"),
        "model": weights_of(config),
        **joined([(part["groups"], part["skipped"]) for part in parts]),
    }
    drawn = {OVERVIEW, *(name for part in parts for name in part["plots"])}
    for plot in (config.results / "figures").glob("*"):
        if plot.suffix in (".png", ".json") and plot.stem not in drawn:
            plot.unlink()
    outcomes = Outcomes(weights_of(config), sky_of(open_store(config.results / "patches.zarr")))
    for name in names:
        outcomes.join(Outcomes.load(outcomes_path(config, name)))
    outcomes.save(config.results / OUTCOMES)
    write_json(config.results / "metrics.json", metrics)
    tell(metrics)
    return metrics


def weights_of(config: Config) -> str | None:
    """Checksum of the trained weights; None when there are none."""
    path = config.results / "model" / "model.safetensors"
    return f"sha256:{sha256(path)}" if path.exists() else None


def outcomes_path(config: Config, part: str) -> Path:
    """Where the outcomes of a part are kept until they are put together."""
    return config.results / "outcomes" / f"{part}.npz"


def joined(parts: Iterable[tuple[dict[str, list], dict[str, str]]]) -> dict[str, Any]:
    """Rows of the same group one after another; a group is skipped when no part has a row."""
    groups: dict[str, list] = {}
    reasons: dict[str, str] = {}
    for rows, why in parts:
        for name, own in rows.items():
            groups.setdefault(name, []).extend(own)
        for name, reason in why.items():
            reasons.setdefault(name, reason)
    return {
        "groups": groups,
        "skipped": {name: reason for name, reason in reasons.items() if name not in groups},
    }


def _part(config: Config, name: str) -> dict[str, Any]:
    path = receipt_path(config, "evaluate", name)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `jaisp evaluate --part {name}` first")
    return read_json(path)
