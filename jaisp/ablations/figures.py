"""What each arm's figures are, and how far they lie from those of the arm it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from jaisp.ablations.arms import Ablations
from jaisp.ablations.one import TIMING, receipt_of
from jaisp.config import Config
from jaisp.errors import UserError
from jaisp.evaluate.bootstrap import mean_interval, sky_units
from jaisp.evaluate.compare import RESAMPLES, SEED, Run, compared
from jaisp.evaluate.outcomes import NAME as OUTCOMES
from jaisp.evaluate.outcomes import Entry, Outcomes
from jaisp.evaluate.position import BOTH
from jaisp.files import read_json

SNRS = (10.0, 30.0, 100.0)
# Figures that are means over sources and both ways of every pair of surveys: the rows that they
# are taken from, and what they are called there.
RETRIEVED = {
    "top-1": {"tokens": "source", "scope": "field", "figure": "top1"},
    "right place": {"tokens": "sky", "scope": "patch", "figure": "within_one"},
}
RETRIEVAL_CONTROLS = ("shuffled", "blank", "random", "pixels")
POSITION_CONTROLS = ("shuffled", "blank", "random", "constant")


# Figures that are means of R² over rows of tokens of one survey.
TOLD = (
    "fluxes",
    "the other's fluxes",
    "colours",
    "the other's colours",
    "redshifts",
    "sizes",
    "ellipticities",
)
# And what apertures and moments make of the same sources.
TOLD_CONTROLS = ("shuffled", "blank", "random", "aperture", "moments")
CONTROLS = tuple(dict.fromkeys((*RETRIEVAL_CONTROLS, *POSITION_CONTROLS, *TOLD_CONTROLS)))


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval: over sky, and of several seeds' mean by Student's t.

    n: test sources. spread: standard deviation over seeds, NaN of one.
    """

    value: float
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    seeds: int = 1
    spread: float = np.nan


Figures = dict[str, Figure]


@dataclass(frozen=True)
class Measured:
    """An arm with one seed, as it was measured.

    outcomes: one entry a figure, its group the figure's name; None when they are not at hand.
    bounds: mas, by figure. model: checksum of the weights. code: hash of what it was made with;
    is_current: whether that is the code of now.
    """

    figures: Figures
    controls: dict[str, Figures]
    outcomes: Outcomes | None
    bounds: dict[str, float]
    timing: dict[str, Any]
    model: str
    code: str
    is_current: bool


def position_name(whose: str, snr: float) -> str:
    """What the error of a position over its bound is called."""
    return f"position {whose} {snr:g}"


def read_measured(ablations: Ablations, arm: str, seed: int) -> Measured | None:
    """What an arm with one seed came to; None when it was not run with its config of now."""
    receipt = receipt_of(ablations, arm, seed)
    config = ablations.config(arm, seed)
    if not receipt.is_file() or not (config.results / "metrics.json").is_file():
        return None
    found, wanted = read_json(receipt), ablations.made_from(arm, seed)
    if found["config"] != wanted["config"]:
        return None
    return _measured(config, found, is_current=found["code"] == wanted["code"])


def _measured(config: Config, receipt: Mapping[str, str], is_current: bool) -> Measured:
    groups = read_json(config.results / "metrics.json")["groups"]
    outcomes = _reduced(Outcomes.load(config.results / OUTCOMES))
    positions = {
        position_name(row["survey"], row["snr"]): row
        for row in groups.get("position", [])
        if (row["readout"], row["sky"]) == ("tokens", "empty") and row["snr"] in SNRS
    }
    # Where the best constant answer is near the bound, there is nothing to know.
    told = {name: row for name, row in positions.items() if row["claim"]}
    figures = {entry.group: _mean(entry) for entry in outcomes if entry.group in RETRIEVED}
    figures |= {name: _over_bound(row) for name, row in told.items()}
    figures |= _spreads(groups.get("collapse", []))
    figures |= _told(groups.get("photometry", []), groups.get("morphology", []), "r2")
    return Measured(
        figures=figures,
        controls=_controls(groups, told),
        outcomes=outcomes,
        bounds={name: row["bound_mas"] for name, row in told.items()},
        timing=read_json(config.results / TIMING),
        model=receipt["model"],
        code=receipt["code"],
        is_current=is_current,
    )


def over_seeds(figures: Sequence[Figures]) -> Figures:
    """The mean of each figure over seeds, and how far seeds lie apart; of one seed, itself."""
    if len(figures) == 1:
        return dict(figures[0])
    found: Figures = {}
    for name in (name for name in figures[0] if all(name in own for own in figures)):
        values = np.array([own[name].value for own in figures])
        mean, spread, seeds = float(values.mean()), float(values.std(ddof=1)), len(values)
        half = float(student.ppf(0.975, seeds - 1)) * spread / np.sqrt(seeds)
        n = figures[0][name].n
        found[name] = Figure(mean, mean - half, mean + half, n, seeds, spread)
    return found


def differences(base: Measured, other: Measured) -> Figures:
    """The other's figures less the base's, on the same sources; none where sky or tokens differ."""
    if base.outcomes is None or other.outcomes is None:
        return {}
    outcomes = {"base": base.outcomes, "arm": other.outcomes}
    runs = [Run(name, Path(name), own) for name, own in outcomes.items()]
    try:
        rows = compared(*runs)
    except UserError:
        return {}
    found: Figures = {}
    for row in rows:
        name = row["group"]
        bound = 1.0 if name in RETRIEVED else base.bounds.get(name, np.nan)
        names = ("difference", "difference_low", "difference_high")
        value, low, high = (row[column] / bound for column in names)
        found[name] = Figure(value, low, high, _sources(row["n"], name))
    return {name: figure for name, figure in found.items() if np.isfinite(figure.value)}


def _reduced(outcomes: Outcomes) -> Outcomes:
    """One entry a figure of the page: both ways of all pairs of surveys in one, positions as they
    are."""
    reduced = Outcomes(outcomes.model, outcomes.sky)
    for name, wanted in RETRIEVED.items():
        own = [
            e for e in outcomes if e.group == "retrieval" and wanted.items() <= e.identity.items()
        ]
        if own:
            ways = [f"{e.identity['query']}>{e.identity['target']}" for e in own]
            named = [np.char.add(e.sources, f"/{way}") for e, way in zip(own, ways, strict=True)]
            values = np.concatenate([e.values for e in own])
            reduced.add(name, {"figure": name}, np.concatenate(named), values)
    for entry in outcomes:
        what = entry.identity
        is_told = what.get("readout") == "tokens" and what.get("sky") == "empty"
        if entry.group == "position" and is_told and what["snr"] in SNRS:
            name = position_name(what["survey"], what["snr"])
            reduced.add(name, {"figure": name}, entry.sources, entry.values, entry.statistic)
    return reduced


def _mean(entry: Entry) -> Figure:
    patches, patch = np.unique(entry.patches, return_inverse=True)
    units, _ = sky_units(patch, [str(name).rpartition("/")[0] for name in patches])
    values = entry.values[:, 0].astype(float)
    low, high = mean_interval(values, units, RESAMPLES, SEED)
    return Figure(float(values.mean()), low, high, _sources(len(values), entry.group))


def _sources(outcomes: int, name: str) -> int:
    """Each source is asked for both ways."""
    return outcomes // 2 if name in RETRIEVED else outcomes


def _over_bound(row: Mapping[str, Any]) -> Figure:
    names = ("median_mas", "median_mas_low", "median_mas_high")
    values = (np.nan if row[name] is None else row[name] for name in names)
    value, low, high = (value / row["bound_mas"] for value in values)
    return Figure(value, low, high, row["n"])


def _spreads(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """How many dimensions the tokens of each survey use, and how many two surveys share."""
    found: Figures = {}
    for row in rows:
        for name in ("participation_ratio", "shared_participation_ratio", "canonical_above_half"):
            if row.get(name) is not None:
                limits = (row.get(f"{name}_{side}") for side in ("low", "high"))
                low, high = (np.nan if value is None else value for value in limits)
                found[f"{name} {row['survey']}"] = Figure(float(row[name]), low, high, row["n"])
    return found


def _told(
    photometry: Sequence[Mapping[str, Any]], morphology: Sequence[Mapping[str, Any]], column: str
) -> Figures:
    """What tokens of one survey tell of sources whose truth is known: each a mean of R² over
    surveys and bands; n of the row with the fewest sources."""
    found: dict[str, list[tuple[float, int]]] = {}
    for row in (*photometry, *morphology):
        survey, _, what = row["target"].rpartition(":")
        if row["survey"] == BOTH or row.get(column) is None:
            continue
        if what == "redshift":
            name = "redshifts"
        elif "-" in what:
            name = "colours" if survey == row["survey"] else "the other's colours"
        elif survey:
            name = "fluxes" if survey == row["survey"] else "the other's fluxes"
        else:
            name = "sizes" if "radius" in what else "ellipticities"
        found.setdefault(name, []).append((row[column], row["n"]))
    return {
        name: Figure(float(np.mean([value for value, _ in own])), n=min(n for _, n in own))
        for name, own in found.items()
    }


def _controls(
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    positions: Mapping[str, Mapping[str, Any]],
) -> dict[str, Figures]:
    """The same figures of each control."""
    found: dict[str, Figures] = {}
    wanted = {key: value for key, value in RETRIEVED["top-1"].items() if key != "figure"}
    rows = [row for row in groups.get("retrieval", []) if wanted.items() <= row.items()]
    for control in RETRIEVAL_CONTROLS if rows else ():
        values = [row[f"{control}_top1"] for row in rows]
        mean = float(np.average(values, weights=[row["n"] for row in rows]))
        found.setdefault(control, {})["top-1"] = Figure(mean, n=rows[0]["n"])
    for name, row in positions.items():
        for control in POSITION_CONTROLS:
            if row[f"{control}_mas"] is not None:
                value = row[f"{control}_mas"] / row["bound_mas"]
                found.setdefault(control, {})[name] = Figure(value, n=row["n"])
    known = groups.get("photometry", []), groups.get("morphology", [])
    for control in TOLD_CONTROLS:
        if figures := _told(*known, f"{control}_r2"):
            found.setdefault(control, {}).update(figures)
    return found
