"""What was found, in a few lines: a table on a terminal, plain lines in a log."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaisp.evaluate.plots.bands import is_of_bands

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
Line = tuple[str, str, str, str, str]
Said = tuple[str, str, str]  # what, the figure, its controls
TOKENS, SNR = "tokens", 30.0  # the position that is told: of tokens, at this S/N


def tell(metrics: Row) -> None:
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


def _is_headline(group: str, row: Row) -> bool:
    if group == "alignment":
        return row["query"].split(":")[0] != row["target"].split(":")[0]
    if group == "retrieval":
        return not is_of_bands(row)
    if group in ("position", "transfer"):
        return row.get("readout", TOKENS) == TOKENS and row.get("snr", SNR) == SNR
    if group == "withheld":
        return row["withheld"] == row["survey"] or row["figure"].startswith("retrieval")
    return group != "deblending" or row["snr"] is None


def _line(group: str, row: Row) -> Line:
    what, figure, controls = LINES.get(group, _other)(row)
    return group, what, str(row["n"]), figure, controls


def _retrieval(row: Row) -> Said:
    what = f"{row['query']} → {row['target']}, {row['tokens']}, {row['scope']}"
    figure = f"top-1 {_f(row['top1'])} of {row['candidates']}, top-5 {_f(row['top5'])}"
    return what, figure, _named(row, ("shuffled", "blank", "random", "pixels"), "top1")


def _alignment(row: Row) -> Said:
    figure = f"{_f(row['dx_arcsec'])}″ east, {_f(row['dy_arcsec'])}″ north"
    phase = f"phase {_f(row['phase_dx_arcsec'])}″, {_f(row['phase_dy_arcsec'])}″"
    what = f"{row['target']} − {row['query']}"
    return what, figure, f"{phase}, correlation {_f(row['correlation'])}"


def _collapse(row: Row) -> Said:
    if "shared_participation_ratio" in row:
        name, of = "shared_participation_ratio", ""
    else:
        name, of = "participation_ratio", f" of {row['dimensions']}"
    figure = f"{name.replace('_', ' ')} {_f(row[name])}{of}"
    return row["survey"], figure, f"random {_f(row[f'random_{name}'])}"


def _position(row: Row) -> Said:
    sky = row.get("sky", "")
    what = f"{row['survey']}, {sky} sky, S/N {row['snr']:g}"
    figure = f"{_mas(row['median_mas'])}, bound {_mas(row['bound_mas'])}"
    return what, figure, _named(row, ("psf_fit", "centroid", "random", "constant"), "mas")


def _registration(row: Row) -> Said:
    what = f"{row['survey']} against {row['target']}, {row['shift_mas']:g} mas"
    controls = ("catalogue", "phase_correlation", "random", "constant")
    return what, f"error {_mas(row['error_mas'])}", _named(row, controls, "mas")


def _deblending(row: Row) -> Said:
    low, high = row["separation_low_arcsec"], row["separation_high_arcsec"]
    figure = f"balanced accuracy {_f(row['accuracy'])}"
    return (
        f"{row['survey']}, {low:g}–{high:g}″",
        figure,
        _named(row, ("peaks", "random", "blank"), "accuracy"),
    )


def _withheld(row: Row) -> Said:
    figure = f"{_f(row['value'])} of {_f(row['complete'])}, loss {_f(row['loss'])}"
    return (
        f"{row['figure']} without {row['withheld']}",
        figure,
        f"random {_f(row.get('random_loss'))}",
    )


def _transfer(row: Row) -> Said:
    if row["figure"] != "position":
        return _other(row)
    what = f"position, {row['survey']}, S/N {row['snr']:g}"
    figure = f"{_f(row['over_bound'])} × the bound, {_f(row['home_over_bound'])} at home"
    return what, figure, f"constant {_f(row['constant_over_bound'])}"


def _other(row: Row) -> Said:
    """Whatever else: the names of a row, its first figure with an interval, and its controls."""
    names = ("survey", "query", "target", "figure")
    what = ", ".join(str(row[name]) for name in names if row.get(name) is not None)
    bounded = [key for key in row if f"{key}_low" in row]
    figure = ", ".join(f"{key} {_f(row[key])}" for key in bounded[:1])
    controls = [
        f"{key} {_f(value)}"
        for key, value in row.items()
        if bounded and key.endswith(f"_{bounded[0]}") and isinstance(value, float | None)
    ]
    return what, figure, ", ".join(controls)


LINES: dict[str, Callable[[Row], Said]] = {
    "retrieval": _retrieval,
    "alignment": _alignment,
    "collapse": _collapse,
    "position": _position,
    "registration": _registration,
    "deblending": _deblending,
    "withheld": _withheld,
    "transfer": _transfer,
}


def _named(row: Row, names: Sequence[str], ending: str) -> str:
    show = _mas if ending == "mas" else _f
    return ", ".join(
        f"{name.replace('_', ' ')} {show(row.get(f'{name}_{ending}'))}" for name in names
    )


def _f(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _mas(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} mas"
