"""What every arm came to, in a file beside the page: results may be gone, or on another machine.

Figures and paired differences are kept as numbers, with what they were made from. An arm that has
results here is read from them, and renews its entry. The arm that others are compared with need not
be the same model to the bit where it is trained again on another machine: a difference stays as
long as that arm's config and code are what they were.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaisp.ablations.arms import Ablations, record_path
from jaisp.ablations.figures import Figure, Figures, Measured, differences, read_measured
from jaisp.errors import UserError
from jaisp.files import read_json, write_text

DIGITS = 5  # that are kept of a number
KEYS = {"config", "code", "model", "timing", "figures", "controls"}  # of an entry
MADE_FROM = ("config", "code")  # of the arm that a difference is taken from

Arms = Mapping[str, Mapping[int, Measured]]  # by arm and seed
Record = dict[str, dict[str, Any]]  # by ARM-SEED
Differences = Mapping[str, Mapping[int, Figures]]


def gather(ablations: Ablations) -> tuple[Arms, Differences]:
    """All arms that were measured with their config of now, here or elsewhere, and their
    differences from those that they are compared with, as the record has them, which is renewed.

    Of an arm that has seeds of the code of now, those of other code are left out: a mean over both
    would be of no model. The record keeps them."""
    path = record_path(ablations.listed.page)
    record = _renewed(ablations, _read(path))
    # A line an arm: what changes shows.
    lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in record.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    found: dict[str, dict[int, Measured]] = {arm: {} for arm in ablations.listed.arms}
    apart: dict[str, dict[int, Figures]] = {arm: {} for arm in ablations.listed.arms}
    for arm, seed in ablations.runs:
        if (own := _kept(ablations, arm, seed, record)) is not None:
            found[arm][seed] = own
    for arm, seeds in found.items():
        if any(own.is_current for own in seeds.values()):
            found[arm] = seeds = {seed: own for seed, own in seeds.items() if own.is_current}
        for seed in seeds:
            if "differences" in record[_name(arm, seed)]:
                apart[arm][seed] = _figures(record[_name(arm, seed)]["differences"])
    return found, apart


def _renewed(ablations: Ablations, record: Record) -> Record:
    """The record with the results that are here, and without arms of other configs."""
    found: dict[str, dict[int, Measured]] = {arm: {} for arm in ablations.listed.arms}
    for arm, seed in ablations.runs:
        own = read_measured(ablations, arm, seed) or _kept(ablations, arm, seed, record)
        if own is not None:
            found[arm][seed] = own
    entries = {
        _name(arm, seed): _entry(ablations, arm, seed, found[arm][seed])
        for arm, seed in ablations.runs
        if seed in found[arm]
    }
    for arm, seed, own, other in _compared(ablations, found):
        entry, old = entries[_name(arm, seed)], record.get(_name(arm, seed), {})
        source = {key: entries[_name(ablations.against(arm), seed)][key] for key in MADE_FROM}
        if own.outcomes is not None and other.outcomes is not None:
            entry |= {"from": source, "differences": _numbers(differences(other, own))}
        elif (old.get("model"), old.get("from")) == (own.model, source):
            entry |= {"from": source, "differences": old["differences"]}
    return entries


def _compared(ablations: Ablations, found: Arms) -> Iterator[tuple[str, int, Measured, Measured]]:
    """Arms and seeds that have a partner on the same sky, each with it."""
    for arm, seeds in found.items():
        against = ablations.against(arm)
        if against != arm and ablations.base(arm) == ablations.base(against):
            for seed in seeds.keys() & found[against].keys():
                yield arm, seed, seeds[seed], found[against][seed]


def _name(arm: str, seed: int) -> str:
    return f"{arm}-{seed}"


def _read(path: Path) -> Record:
    if not path.is_file():
        return {}
    try:
        record = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); remove it") from None
    entries = record.items() if isinstance(record, dict) else [("all of it", None)]
    for name, entry in entries:
        if not isinstance(entry, dict) or not entry.keys() >= KEYS:
            raise UserError(f"{path}: {name}: is no arm ({', '.join(sorted(KEYS))}); remove it")
    return record


def _kept(ablations: Ablations, arm: str, seed: int, record: Record) -> Measured | None:
    """An arm as it is recorded; None when that was with another config."""
    entry = record.get(_name(arm, seed))
    wanted = ablations.made_from(arm, seed)
    if entry is None or entry["config"] != wanted["config"]:
        return None
    return Measured(
        figures=_figures(entry["figures"]),
        controls={name: _figures(own) for name, own in entry["controls"].items()},
        outcomes=None,
        bounds={},
        timing=entry["timing"],
        model=entry["model"],
        code=entry["code"],
        is_current=entry["code"] == wanted["code"],
    )


def _entry(ablations: Ablations, arm: str, seed: int, own: Measured) -> dict[str, Any]:
    return {
        "config": ablations.made_from(arm, seed)["config"],
        "code": own.code,
        "model": own.model,
        "timing": {name: own.timing[name] for name in ("seconds", "threads", "machine")},
        "figures": _numbers(own.figures),
        "controls": {name: _numbers(figures) for name, figures in own.controls.items()},
    }


def _numbers(figures: Figures) -> dict[str, list[float | int | None]]:
    """Each figure's value, low, high and n; None for what is not a number."""
    return {
        name: [*map(_number, (figure.value, figure.low, figure.high)), figure.n]
        for name, figure in figures.items()
    }


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _figures(numbers: Mapping[str, list[float | int | None]]) -> Figures:
    found: Figures = {}
    for name, (*limits, n) in numbers.items():
        value, low, high = (math.nan if limit is None else limit for limit in limits)
        found[name] = Figure(value, low, high, int(n or 0))
    return found
