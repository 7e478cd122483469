"""What an earlier public attempt reported of itself, beside this one's figures of the full ruler.

Its figures are from its own files: a research code for Rubin and Euclid of 790 matched tiles. Used
by `readme_figures.py` for docs/ruler.md.
"""

from collections.abc import Callable
from typing import Any

Metrics = dict[str, Any]
R2 = {"u": 0.83, "g": 0.94, "r": 0.94, "i": 0.95, "z": 0.89, "y": 0.87,
      "VIS": 0.71, "Y": 0.81, "J": 0.93, "H": 0.92}  # fmt: skip
PEARSON = {"g": 0.987, "r": 0.992, "i": 0.991, "z": 0.966, "VIS": 0.718, "Y": 0.833, "J": 0.873,
           "H": 0.896, "u": 0.265, "y": 0.642}  # fmt: skip


def predecessor_table(metrics: Metrics) -> list[str]:
    """A row a figure: theirs, ours, and what keeps them from being the same measurement."""
    lines = ["| figure | earlier attempt | here | why they differ |", "|---|---|---|---|"]
    return lines + [
        f"| {what} | {theirs} | {ours(metrics)} | {why} |" for what, theirs, ours, why in ROWS
    ]


def _row(metrics: Metrics, group: str, **wanted: Any) -> dict[str, Any] | None:
    for row in metrics["groups"].get(group, []):
        if all(row.get(name) == value for name, value in wanted.items()):
            return row
    return None


def _retrieval(metrics: Metrics) -> str:
    row = _row(metrics, "retrieval", query="rubin", target="euclid_q1", tokens="source")
    if row is None:
        return "–"
    return (
        f"{row['top1']:.3f}, {row['top5']:.3f}, {row['separation']:.3f} "
        f"(n = {row['n']}; shuffled {row['shuffled_top1']:.3f})"
    )


def _participation(metrics: Metrics) -> str:
    rows = [_row(metrics, "collapse", survey=survey) for survey in ("rubin", "euclid_q1")]
    return ", ".join(
        f"{row['participation_ratio']:.1f} of {row['dimensions']} ({row['survey']}, n = {row['n']})"
        for row in rows
        if row
    )


def _position(snr: float) -> Callable[[Metrics], str]:
    def of(metrics: Metrics) -> str:
        row = _row(metrics, "position", survey="both", snr=snr, readout="tokens", sky="empty")
        if row is None:
            return "–"
        return (
            f"{row['median_mas']:.1f} mas, bound {row['bound_mas']:.1f} "
            f"(ratio {row['over_bound']:.1f}; constant {row['constant_mas']:.0f}; n = {row['n']})"
        )

    return of


def _fluxes(metrics: Metrics) -> str:
    return _by_band(metrics, "photometry", "r2", R2)


def _images(metrics: Metrics) -> str:
    return _by_band(metrics, "reconstruction", "r", PEARSON)


def _by_band(metrics: Metrics, group: str, figure: str, bands: dict[str, float]) -> str:
    """Of each band, what the other survey's tokens say; what its own say where that is all."""
    found = []
    for band in bands:
        rows = [
            row
            for row in metrics["groups"].get(group, [])
            if row["target"].partition(":")[2] == band and row["survey"] != "both"
        ]
        across = [row for row in rows if row["target"].split(":")[0] != row["survey"]] or rows
        if across:
            found.append(f"{band} {across[0][figure]:.2f}")
    return " ".join(found) or "–"


def _listed(bands: dict[str, float], digits: int) -> str:
    return " ".join(f"{band} {value:.{digits}f}" for band, value in bands.items())


ROWS: list[tuple[str, str, Callable[[Metrics], str], str]] = [
    (
        "retrieval across instruments: top-1, top-5, separation",
        "0.000, 0.019, 0.0015",
        _retrieval,
        "its pairs were displaced by 3″ and compared by array index; ours meet by WCS",
    ),
    (
        "participation ratio",
        "5.2 of 256",
        _participation,
        "other dimensions; ours on source tokens of held-out sky",
    ),
    (
        "position at S/N 10, all bands together",
        "13.9 mas, bound 4.5 (ratio 3.1)",
        _position(10.0),
        "its head was trained on positions; ours is read off frozen tokens, which were taught the "
        "places of sources added to training sky. Other depths and SEDs",
    ),
    (
        "position at S/N 5",
        "18.9 mas",
        _position(5.0),
        "as above",
    ),
    (
        "R² by band",
        _listed(R2, 2) + " (of log S/N, own tokens)",
        _fluxes,
        "ours is of the *true* log flux of sources at S/N 5–100, from the *other* survey's tokens",
    ),
    (
        "reconstruction, Pearson r by band",
        _listed(PEARSON, 3),
        _images,
        "its network was trained to fill in masked bands, given all others, on whole images; ours "
        "decodes source pixels, less the mean image, from the other survey's frozen tokens",
    ),
]
