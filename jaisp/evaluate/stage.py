"""The stage: a published store and a trained model in, metrics.json and plots out.

It is measured in parts, each by itself or all in turn, and gathered.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaisp.allocation import keep_freed_memory
from jaisp.config import Config, stage_hash
from jaisp.config.evaluate import PARTS, EvaluateConfig
from jaisp.errors import UserError
from jaisp.evaluate.bench import Bench
from jaisp.evaluate.edge import with_edge
from jaisp.evaluate.found import Found
from jaisp.evaluate.outcomes import NAME as OUTCOMES
from jaisp.evaluate.outcomes import Outcomes, sky_of
from jaisp.evaluate.parts import MEASURES
from jaisp.evaluate.plots.style import plain
from jaisp.evaluate.summary import tell
from jaisp.evaluate.views import Encoder
from jaisp.files import read_json, receipt_path, sha256, write_json
from jaisp.store.reader import Store, open_store

log = logging.getLogger(__name__)

OVERVIEW = "overview"  # the report's own picture


def evaluate_part(
    config: Config, part: str, threads: int | None = None, measured: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure one part of PARTS and draw its plots; returns what its receipt holds.

    measured: what of the part; default all of it. Without a trained model, only what needs none is
    measured. Raises UserError when the run has no published store.
    """
    if part not in PARTS:
        raise UserError(f"--part: {part!r} is not one of {', '.join(PARTS)}")
    keep_freed_memory()
    store = open_store(config.results / "patches.zarr")
    weights = _weights(config)
    encoders = _load(config, threads) if weights else None
    outcomes = Outcomes(weights, sky_of(store))
    settings = with_edge(config.evaluate, encoders or (), store.token_arcsec)
    bench = Bench(store, settings, encoders, config.results, outcomes)
    found = _measured(measured or PARTS[part], bench)
    outcomes.save(_outcomes_of(config, part))
    for plot in found.plots:
        plot.write(config.results / "figures")
    for row in (row for rows in found.groups.values() for row in rows):
        # Of groups that are measured on skies with known answers, which one.
        sky = {"sky": row["field"]} if "field" in row else {}
        row |= {"field": config.run, "token_arcsec": store.token_arcsec, **sky}
    return plain(
        {
            "groups": found.groups,
            "skipped": found.skipped,
            "plots": [plot.name for plot in found.plots],
        }
    )


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
        "model": _weights(config),
        **_joined([(part["groups"], part["skipped"]) for part in parts]),
    }
    drawn = {OVERVIEW, *(name for part in parts for name in part["plots"])}
    for plot in (config.results / "figures").glob("*"):
        if plot.suffix in (".png", ".json") and plot.stem not in drawn:
            plot.unlink()
    outcomes = Outcomes(_weights(config), sky_of(open_store(config.results / "patches.zarr")))
    for name in names:
        outcomes.join(Outcomes.load(_outcomes_of(config, name)))
    outcomes.save(config.results / OUTCOMES)
    write_json(config.results / "metrics.json", metrics)
    tell(metrics)
    return metrics


def measure(
    store: Store, settings: EvaluateConfig, encoders: tuple[Encoder, Encoder] | None
) -> Found:
    """All parts on a store alone, without skies whose answers are known.

    encoders: the model, and its architecture with fresh weights, the control `random`.
    """
    bench = Bench(store, with_edge(settings, encoders or (), store.token_arcsec), encoders)
    return _measured(MEASURES, bench)


def _measured(names: Iterable[str], bench: Bench) -> Found:
    found = [MEASURES[name](bench) for name in names]
    joined = _joined([(each.groups, each.skipped) for each in found])
    return Found(**joined, plots=[plot for each in found for plot in each.plots])


def _weights(config: Config) -> str | None:
    """Checksum of the trained weights; None when there are none."""
    path = config.results / "model" / "model.safetensors"
    return f"sha256:{sha256(path)}" if path.exists() else None


def _outcomes_of(config: Config, part: str) -> Path:
    return config.results / "outcomes" / f"{part}.npz"


def _part(config: Config, name: str) -> dict[str, Any]:
    path = receipt_path(config, "evaluate", name)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `jaisp evaluate --part {name}` first")
    return read_json(path)


def _joined(parts: Iterable[tuple[dict[str, list], dict[str, str]]]) -> dict[str, Any]:
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


def _load(config: Config, threads: int | None) -> tuple[Encoder, Encoder]:
    import torch

    from jaisp.model import load_model, random_model

    if threads is not None:
        torch.set_num_threads(threads)
    model = load_model(config.results / "model")
    return model.eval(), random_model(model).eval()
