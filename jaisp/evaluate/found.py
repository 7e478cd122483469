"""What a part of the evaluation gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaisp.evaluate.plots.style import Plot

Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """Rows by group, reasons of the groups that could not be measured, and plots."""

    groups: dict[str, list[Row]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)


def skipped(names: tuple[str, ...], reason: str) -> Found:
    """None of these groups was measured, for one reason."""
    return Found(skipped=dict.fromkeys(names, reason))


def found(
    groups: dict[str, list[Row]],
    plots: list[Plot],
    reason: str,
    others: Mapping[str, str] | None = None,
) -> Found:
    """Groups with rows; those without any were skipped for `reason`, or for one of `others`."""
    reasons = {name: (others or {}).get(name, reason) for name in groups}
    return Found(
        groups={name: rows for name, rows in groups.items() if rows},
        skipped={name: reasons[name] for name, rows in groups.items() if not rows},
        plots=plots,
    )
