"""Two or more runs side by side: the same sources in each, differences with paired intervals.

What makes one source harder than another is the same for every model; a difference of paired
outcomes doesn't carry it, so that it is known far better than either figure.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table

from jaisp.errors import UserError
from jaisp.evaluate.bootstrap import limits, mean_interval, sky_units
from jaisp.evaluate.outcomes import NAME, Entry, Outcomes
from jaisp.evaluate.plots.style import plain
from jaisp.evaluate.statistic import Statistic, drawn_figures, draws, figure_of
from jaisp.files import write_json

log = logging.getLogger(__name__)

RESAMPLES = 1000
# Of figures that aren't means, each resample takes longer.
FEWER_RESAMPLES = 300
SEED = 1


@dataclass(frozen=True)
class Run:
    """A run's name, its folder and what became of its sources."""

    name: str
    folder: Path
    outcomes: Outcomes


def compare(runs: Sequence[str | Path], out: Path | None = None) -> dict[str, Any]:
    """Compare every run with the first; write comparison.json and print a table.

    runs: names of runs, or folders that hold their outcomes.npz. out: default comparison.json in
    the first run's folder. Returns what is written. Raises UserError when a run has not been
    evaluated, or has no figure or no source in common with the first.
    """
    if len(runs) < 2:
        raise UserError("--compare: name two runs or more")
    base, *others = (_open(run) for run in runs)
    rows = [row for other in others for row in compared(base, other)]
    content = {
        "runs": [
            {"run": run.name, "folder": str(run.folder), "model": run.outcomes.model}
            for run in (base, *others)
        ],
        "rows": plain(rows),
    }
    path = base.folder / "comparison.json" if out is None else out
    write_json(path, content)
    _tell(content["rows"])
    log.info("%d figures compared: %s", len(rows), path)
    return content


def compared(base: Run, other: Run) -> list[dict[str, Any]]:
    """A row for each figure that both runs have, on the sources that both measured.

    `difference` is the other's figure less the base's.
    """
    if base.outcomes.sky != other.outcomes.sky:
        raise UserError(
            f"{other.folder}: other sky than {base.folder} (cells, patches or tokens differ); "
            "only runs on the same patches can be compared"
        )
    shared = [(entry, other.outcomes.get(entry.key)) for entry in base.outcomes]
    pairs = [(mine, theirs) for mine, theirs in shared if theirs is not None]
    if not pairs:
        raise UserError(f"{other.folder}: has no figure in common with {base.folder}")
    rows = [_row(base, other, mine, theirs) for mine, theirs in pairs]
    if not any(row["n"] for row in rows):
        raise UserError(f"{other.folder}: has no source in common with {base.folder}")
    _say_what_is_left_out(base, other, rows)
    return [row for row in rows if row["n"]]


def _open(run: str | Path) -> Run:
    for folder in (Path(run), Path("results") / run):
        if (folder / NAME).exists():
            return Run(folder.resolve().name, folder, Outcomes.load(folder / NAME))
    raise UserError(
        f"{run}: no {NAME} there or in {Path('results') / run}; run `jaisp evaluate` first"
    )


def _row(base: Run, other: Run, mine: Entry, theirs: Entry) -> dict[str, Any]:
    _, i, j = np.intersect1d(mine.sources, theirs.sources, return_indices=True)
    patch_names, patch = np.unique(mine.patches[i], return_inverse=True)
    cells = [str(name).rpartition("/")[0] for name in patch_names]
    units, unit = sky_units(patch, cells)
    first, second = mine.values[i].astype(float), theirs.values[j].astype(float)
    values = [figure_of(mine.statistic, own) for own in (first, second)]
    low, high = paired_interval(mine.statistic, first, second, units)
    return {
        "group": mine.group,
        **mine.identity,
        "base": base.name,
        "run": other.name,
        "n": len(i),
        "base_n": len(mine.sources),
        "run_n": len(theirs.sources),
        "base_value": values[0],
        "run_value": values[1],
        "difference": values[1] - values[0],
        "difference_low": low,
        "difference_high": high,
        "statistic": mine.statistic,
        "interval_unit": unit,
    }


def paired_interval(
    statistic: Statistic,
    first: Float[np.ndarray, "source column"],
    second: Float[np.ndarray, "source column"],
    units: Int[np.ndarray, " source"],
) -> tuple[float, float]:
    """95 % interval of the second's figure less the first's, the same sky drawn for both."""
    if statistic == "mean":
        difference = (second - first).mean(axis=1)
        return mean_interval(difference, units, RESAMPLES, SEED)
    if len(units) < 2:
        return np.nan, np.nan
    drawn = draws(units, FEWER_RESAMPLES, SEED)
    of_first, of_second = (drawn_figures(statistic, own, units, drawn) for own in (first, second))
    return limits(of_second - of_first)


def _say_what_is_left_out(base: Run, other: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    counts = [len(base.outcomes) - len(rows), len(other.outcomes) - len(rows)]
    if any(counts):
        names = (f"{count} of {run.name}" for count, run in zip(counts, (base, other), strict=True))
        log.warning("figures that only one run has are left out: %s", ", ".join(names))
    partly = max(rows, key=lambda row: row["base_n"] + row["run_n"] - 2 * row["n"])
    if partly["n"] < max(partly["base_n"], partly["run_n"]):
        log.warning(
            "the runs measured other sources: of %s in %s and %s in %s, %s are compared, and so on",
            partly["base_n"], base.name, partly["run_n"], other.name, partly["n"],
        )  # fmt: skip


def _tell(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table on a terminal, a line a figure in a log; what is of single bands is in the file."""
    shown = [
        row
        for row in rows
        if ":" not in str(row.get("query", "")) and row.get("withheld") in (None, row.get("survey"))
    ]
    if sys.stdout.isatty():
        table = Table("group", "what", "figure", "n", "base", "run", "difference")
        for row in shown:
            table.add_row(*_cells(row))
        Console().print(table)
        return
    for row in shown:
        log.info("%s %s %s (n = %s): %s, %s; difference %s", *_cells(row))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    columns = list(row)
    identity = columns[1 : columns.index("base")]
    what = ", ".join(str(row[name]) for name in identity if name != "figure")
    difference = (
        f"{_f(row['difference'], '+')} ({_f(row['difference_low'], '+')} to "
        f"{_f(row['difference_high'], '+')})"
    )
    values = (f"{row[name]} {_f(row[f'{name}_value'])}" for name in ("base", "run"))
    return (row["group"], what, row["figure"], str(row["n"]), *values, difference)


def _f(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4g}"
