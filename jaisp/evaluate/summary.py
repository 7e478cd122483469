"""What was found, in a few lines: a table on a terminal, plain lines in a log."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from jaisp.evaluate.plots.bands import is_of_bands

log = logging.getLogger(__name__)

Line = tuple[str, str, str, str, str]


def tell(metrics: Mapping[str, Any]) -> None:
    """Say the main figures with their controls, and what was skipped."""
    lines = [
        _line(group, row)
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


def _line(group: str, row: Mapping[str, Any]) -> Line:
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
