"""What the run shows, in a few figures and plain words: no figure without its controls."""

from dataclasses import dataclass
from typing import Any

from jaisp.report.tables import figure

Row = dict[str, Any]
# Units after a space that does not break.
PERCENT, MAS = "\u00a0%", "\u00a0mas"
CONTROL_NAMES = {
    "shuffled": "shuffled pairs",
    "blank": "blank noise",
    "random": "an untrained encoder",
    "pixels": "raw pixels",
    "chance": "chance",
    "constant": "the best constant",
}


@dataclass(frozen=True)
class Finding:
    """One main figure. `claim` says it in a clause; `good` is None where it has no verdict."""

    claim: str
    label: str
    value: str
    interval: str
    detail: str
    verdict: str
    good: bool | None


def findings(metrics: Row) -> list[Finding]:
    """The main figures of a run: retrieval and position in their weakest case, and collapse."""
    groups = metrics.get("groups", {})
    made = [
        _retrieval(groups.get("retrieval", [])),
        _position(groups.get("position", [])),
        _collapse(groups.get("collapse", [])),
    ]
    return [finding for finding in made if finding is not None]


def verdict(found: list[Finding]) -> str:
    """The main figures in one sentence that claims no more than the intervals allow."""
    judged = [finding for finding in found if finding.verdict]
    if not judged:
        return "This run has no figure that could be judged against a control."
    clauses = [f"{finding.claim}, {finding.verdict}" for finding in judged]
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def _retrieval(rows: list[Row]) -> Finding | None:
    between = [
        row
        for row in rows
        if row.get("tokens") == "source"
        and row.get("scope", "field") == "field"
        and row.get("top1") is not None
        and ":" not in f"{row.get('query')}{row.get('target')}"
        and row.get("query") != row.get("target")
    ]
    if not between:
        return None
    row = min(between, key=lambda r: r["top1"])
    controls = _controls(row, "top1")
    shown = figure(row, "top1")
    directions = "the weaker direction" if len(between) == 2 else "the weakest direction"
    chance = f" among {row['candidates']} candidates" if row.get("candidates") else ""
    return Finding(
        f"{shown.text}{PERCENT} of {row['n']} held-out sources in {row['query']} find "
        f"themselves in {row['target']}{chance}",
        "Retrieval between surveys",
        f"{shown.text}{PERCENT}",
        _unit(shown.interval, PERCENT),
        f"of {row['n']} held-out sources in {row['query']} find themselves in {row['target']}"
        f"{chance}{f', {directions}' if len(between) > 1 else ''}. "
        f"Controls: {_listed(row, controls, 'top1', PERCENT)}.",
        *_judged(row, "top1", controls, higher=True),
    )


def _position(rows: list[Row]) -> Finding | None:
    tokens = [
        row
        for row in rows
        if row.get("readout", "tokens") == "tokens" and row.get("median_mas") is not None
    ]
    plain = [row for row in tokens if ">" not in str(row.get("survey"))] or tokens
    if not plain:
        return None
    # One S/N for all: the one nearest to 30, where images are neither hopeless nor saturated.
    snr = min({row.get("snr", 30) for row in plain}, key=lambda s: abs(s - 30))
    row = max((r for r in plain if r.get("snr", 30) == snr), key=lambda r: r["median_mas"])
    controls = [c for c in ("constant", "random") if row.get(f"{c}_mas") is not None]
    shown = figure(row, "median_mas")
    level = f"S/N {snr:g}" + (f" on {row['sky']} sky" if row.get("sky") else "")
    classical = [
        f"{name} {figure(row, key).text}{MAS}"
        for key, name in (
            ("bound_mas", "Cramér–Rao bound"),
            ("centroid_mas", "centroid"),
            ("psf_fit_mas", "PSF fit"),
        )
        if row.get(key) is not None
    ]
    return Finding(
        f"tokens ({row['survey']}) place sources of {level} to {shown.text}{MAS}"
        f"{f' ({classical[-1]})' if classical else ''}",
        "Position from tokens",
        f"{shown.text}{MAS}",
        _unit(shown.interval, MAS),
        f"median error of {row['n']} injected sources of {level}, {row['survey']}"
        f"{f'; {_and(classical)}' if classical else ''}. "
        f"Controls: {_listed(row, controls, 'mas', MAS)}.",
        *_judged(row, "median_mas", controls, higher=False),
    )


def _collapse(rows: list[Row]) -> Finding | None:
    known = [r for r in rows if r.get("participation_ratio") is not None and r.get("dimensions")]
    if not known:
        return None
    row = min(known, key=lambda r: r["participation_ratio"] / r["dimensions"])
    shown = figure(row, "participation_ratio")
    shared = [r for r in rows if r.get("shared_participation_ratio") is not None]
    also = ""
    if shared:
        least = min(shared, key=lambda r: r["shared_participation_ratio"])
        also = f" Shared between surveys: {figure(least, 'shared_participation_ratio').text}."
    return Finding(
        f"{shown.text} of {row['dimensions']} dimensions are in use",
        "Dimensions in use",
        f"{shown.text} of {row['dimensions']}",
        shown.interval,
        f"participation ratio of {row['n']} tokens of {row['survey']}, the survey that uses "
        f"fewest.{also}",
        "",
        None,
    )


def _controls(row: Row, key: str) -> list[str]:
    return [name for name in CONTROL_NAMES if row.get(f"{name}_{key}") is not None]


def _judged(row: Row, key: str, controls: list[str], higher: bool) -> tuple[str, bool | None]:
    """The verdict on a figure: its interval's worse end against its strongest control."""
    suffix = "mas" if key.endswith("mas") else key
    if row.get("underpowered"):
        return f"n = {row['n']} is too few for a verdict", None
    if not controls:
        return "no controls were measured", None
    worse = row.get(f"{key}_low" if higher else f"{key}_high")
    if worse is None:
        return "no interval was measured", None
    choose = max if higher else min
    best = choose(controls, key=lambda name: row[f"{name}_{suffix}"])
    strongest = row[f"{best}_{suffix}"]
    good = worse > strongest if higher else worse < strongest
    if good:
        return "beyond every control", True
    return f"not beyond {CONTROL_NAMES[best]}", False


def _listed(row: Row, controls: list[str], suffix: str, unit: str) -> str:
    shown = [
        f"{CONTROL_NAMES[name]} {figure(row, f'{name}_{suffix}').text}{unit}" for name in controls
    ]
    return ", ".join(shown) if shown else "none measured"


def _unit(interval: str, unit: str) -> str:
    return f"{interval}{unit}" if interval else ""


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
