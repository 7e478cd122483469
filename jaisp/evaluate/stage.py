"""The stage: a published store and a trained model in, metrics.json and plots out.

It is measured in parts, each by itself or all in turn, and gathered (`jaisp.evaluate.gather`).
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from jaisp.allocation import keep_freed_memory
from jaisp.config import Config
from jaisp.config.evaluate import PARTS, EvaluateConfig
from jaisp.errors import UserError
from jaisp.evaluate.bench import FURTHER, Bench
from jaisp.evaluate.edge import with_edge
from jaisp.evaluate.found import Found
from jaisp.evaluate.gather import joined, outcomes_path, weights_of
from jaisp.evaluate.outcomes import Outcomes, sky_of
from jaisp.evaluate.parts import MEASURES
from jaisp.evaluate.plots.style import plain
from jaisp.evaluate.scene import Encoder
from jaisp.store.reader import Store, open_store

log = logging.getLogger(__name__)


def evaluate_part(
    config: Config,
    part: str,
    threads: int | None = None,
    measured: Sequence[str] = (),
    further: Collection[str] = FURTHER,
    controls: bool = True,
) -> dict[str, Any]:
    """Measure one part of PARTS and draw its plots; returns what its receipt holds.

    measured: what of the part; default all of it. further: which of FURTHER besides. controls:
    whether probes are fitted on controls' tokens, too. Without a trained model, only what needs
    none is measured. Raises UserError when the run has no published store.
    """
    if part not in PARTS:
        raise UserError(f"--part: {part!r} is not one of {', '.join(PARTS)}")
    keep_freed_memory()
    store = open_store(config.results / "patches.zarr")
    weights = weights_of(config)
    encoders = _load(config, threads) if weights else None
    outcomes = Outcomes(weights, sky_of(store))
    settings = with_edge(config.evaluate, encoders or (), store.token_arcsec)
    bench = Bench(store, settings, encoders, config.results, outcomes, further, controls)
    found = _measured(measured or PARTS[part], bench)
    outcomes.save(outcomes_path(config, part))
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
    rows = joined([(each.groups, each.skipped) for each in found])
    return Found(**rows, plots=[plot for each in found for plot in each.plots])


def _load(config: Config, threads: int | None) -> tuple[Encoder, Encoder]:
    import torch

    from jaisp.model import load_model, random_model

    if threads is not None:
        torch.set_num_threads(threads)
    model = load_model(config.results / "model")
    return model.eval(), random_model(model).eval()
