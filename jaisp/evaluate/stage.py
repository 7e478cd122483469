"""The stage: a published store and a trained model in, metrics.json and plots out."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jaisp.config import Config, stage_hash
from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.alignment import alignment
from jaisp.evaluate.bands import band_retrieval
from jaisp.evaluate.collapse import collapse
from jaisp.evaluate.controls import Blank, Pixels
from jaisp.evaluate.figures import draw_all, plain
from jaisp.evaluate.means import mean_tokens
from jaisp.evaluate.outcomes import NAME as OUTCOMES
from jaisp.evaluate.outcomes import Outcomes, sky_of
from jaisp.evaluate.plots_retrieval import is_of_bands
from jaisp.evaluate.retrieval import retrieval
from jaisp.evaluate.sources import Catalogue, find_sources
from jaisp.evaluate.views import Encoder, encode_sky
from jaisp.evaluate.withheld import retrieval_figures, withheld
from jaisp.files import sha256, write_json
from jaisp.progress import track
from jaisp.store.reader import Store, open_store

log = logging.getLogger(__name__)

NOT_MEASURED = dict.fromkeys(
    (
        "position",
        "registration",
        "photometry",
        "morphology",
        "deblending",
        "reconstruction",
        "transfer",
    ),
    "not measured by this version",
)
# Some thousand tokens: enough to know their mean over training sky.
MEAN_PATCHES = 6
SEEING = ("model", "random")


def evaluate(config: Config, threads: int | None = None) -> dict[str, Any]:
    """Measure a run's encoders: writes metrics.json, outcomes.npz and figures/ in results/RUN/.

    Returns the content of metrics.json. Without a trained model, only what needs none is
    measured. Raises UserError when the run has no published store.
    """
    from jaisp import __version__

    store = open_store(config.results / "patches.zarr")
    path = config.results / "model" / "model.safetensors"
    encoders = _load(config, threads) if path.exists() else None
    weights = f"sha256:{sha256(path)}" if path.exists() else None
    outcomes = Outcomes(weights, sky_of(store))
    groups, skipped, plots = measure(store, config.evaluate, encoders, outcomes)
    for row in (row for rows in groups.values() for row in rows):
        row |= {"field": config.run, "token_arcsec": store.token_arcsec}
    metrics = plain(
        {
            "run": config.run,
            "version": __version__,
            "config_hash": stage_hash(config, "evaluate"),
            "model": weights,
            "groups": groups,
            "skipped": skipped,
        }
    )
    draw_all(config.results / "figures", groups, plots)
    outcomes.save(config.results / OUTCOMES)
    write_json(config.results / "metrics.json", metrics)
    _tell(metrics)
    return metrics


def measure(
    store: Store,
    settings: EvaluateConfig,
    encoders: tuple[Encoder, Encoder] | None,
    outcomes: Outcomes | None = None,
) -> tuple[dict[str, list[dict]], dict[str, str], dict[str, Any]]:
    """Rows by group, reasons of the groups skipped, and what the plots show.

    encoders: the model, and its architecture with fresh weights, the control `random`; None
    measures only what needs no encoder. outcomes: where every source's outcome is kept.
    """
    groups: dict[str, list[dict]] = {}
    skipped = dict(NOT_MEASURED)
    plots: dict[str, Any] = {}
    test, train = _drawn(store, "test", settings.patches), _drawn(store, "train", MEAN_PATCHES)

    reason: str | None = "no trained model"
    if encoders is not None:
        reason = _why_not(test, train)
    if encoders is not None and reason is None:
        every = _with_controls(store, *encoders, settings)
        catalogues = _catalogues(store, test)
        sky = encode_sky(store, test, catalogues, every, settings)
        means = mean_tokens(store, train, dict(zip(SEEING, encoders, strict=True)), settings)
        groups["retrieval"], plots["retrieval"] = retrieval(sky, means, settings, outcomes)
        groups["collapse"], plots["spectra"] = collapse(sky, means, settings)
        if groups["retrieval"]:
            groups["retrieval"] += band_retrieval(
                store, test, train, catalogues, every, settings, outcomes
            )
            bands = {survey: store.bands(survey) for survey in store.surveys}
            figures = retrieval_figures(store, train, sky, means, every, settings)
            groups["withheld"] = withheld(figures, bands, settings, outcomes)
        reason = f"no source above S/N {settings.snr_min:g} in two surveys on held-out sky"
    for name in ("retrieval", "collapse", "withheld"):
        if not groups.get(name) and reason is not None:
            groups.pop(name, None)
            skipped[name] = reason
    if "retrieval" in groups and "withheld" in skipped:
        skipped["withheld"] = "no survey has a band to spare"

    groups["alignment"], plots["alignment"] = alignment(store, settings)
    if not groups["alignment"]:
        del groups["alignment"]
        skipped["alignment"] = "no patch is covered by two bands"
    return groups, skipped, plots


def _why_not(test: np.ndarray, train: np.ndarray) -> str | None:
    """Why the encoders can't be measured on this field; None when they can."""
    if not len(test):
        return "no held-out sky: the split has no test patch"
    if not len(train):
        return "no training sky to take the mean token from"
    return None


def _drawn(store: Store, split: str, most: int) -> np.ndarray:
    """Patches of a split that two surveys cover, at most `most`, drawn evenly over the sky."""
    covered = [n for n in store.where(split) if len(store[int(n)].surveys) > 1]
    step = -(-len(covered) // most) if covered else 1
    return np.array(covered[::step], int)


def _catalogues(store: Store, numbers: np.ndarray) -> list[Catalogue]:
    found = []
    for number in track([int(n) for n in numbers], "find sources"):
        patch = store[number]
        views = {survey: patch[survey] for survey in patch.surveys}
        found.append(
            find_sources(views, {s: store.noise_correlation(patch.cell, s) for s in views})
        )
    return found


def _with_controls(
    store: Store, model: Encoder, random: Encoder, settings: EvaluateConfig
) -> dict[str, Encoder]:
    return {
        "model": model,
        "random": random,
        "blank": Blank(model, settings.seed),
        "pixels": Pixels({survey: store.pixels_per_token(survey) for survey in store.surveys}),
    }


def _load(config: Config, threads: int | None) -> tuple[Encoder, Encoder]:
    import torch

    from jaisp.model import load_model, random_model

    if threads is not None:
        torch.set_num_threads(threads)
    model = load_model(config.results / "model")
    return model.eval(), random_model(model).eval()


def _tell(metrics: Mapping[str, Any]) -> None:
    """Say what was found: a table on a terminal, a few lines in a log."""
    lines = [
        _summary(group, row)
        for group, rows in metrics["groups"].items()
        for row in rows
        if _is_headline(group, row)
    ]
    if sys.stderr.isatty():
        table = Table("group", "what", "n", "figure", "controls", title=metrics["run"])
        for line in lines:
            table.add_row(*line)
        Console(stderr=True).print(table)
    for line in lines:
        log.info("%s %s (n = %s): %s; %s", *line)
    for group, reason in metrics["skipped"].items():
        log.info("%s skipped: %s", group, reason)


def _is_headline(group: str, row: Mapping[str, Any]) -> bool:
    if group == "alignment":
        return row["query"].split(":")[0] != row["target"].split(":")[0]
    return group != "retrieval" or not is_of_bands(row)


def _summary(group: str, row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    n = str(row["n"])
    if group == "retrieval":
        what = f"{row['query']} → {row['target']}, {row['tokens']}, {row['scope']}"
        figure = f"top-1 {_f(row['top1'])} of {row['candidates']}, top-5 {_f(row['top5'])}"
        controls = ("shuffled", "blank", "random", "pixels")
        return group, what, n, figure, ", ".join(f"{c} {_f(row[f'{c}_top1'])}" for c in controls)
    if group == "alignment":
        what = f"{row['target']} − {row['query']}"
        figure = f"{_f(row['dx_arcsec'])}″ east, {_f(row['dy_arcsec'])}″ north"
        phase = f"phase {_f(row['phase_dx_arcsec'])}″, {_f(row['phase_dy_arcsec'])}″"
        return group, what, n, figure, f"{phase}, correlation {_f(row['correlation'])}"
    if group == "withheld":
        what = f"{row['figure']} without {row['withheld']}"
        figure = f"{_f(row['value'])} of {_f(row['complete'])}, loss {_f(row['loss'])}"
        return group, what, n, figure, f"random {_f(row['random_loss'])}"
    if "shared_participation_ratio" in row:
        figure = f"shared participation ratio {_f(row['shared_participation_ratio'])}"
        chance = f"random {_f(row['random_shared_participation_ratio'])}"
        return group, row["survey"], n, figure, chance
    figure = f"participation ratio {_f(row['participation_ratio'])} of {row['dimensions']}"
    return group, row["survey"], n, figure, f"random {_f(row['random_participation_ratio'])}"


def _f(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
