"""The groups of metrics.json as tables in which no figure stands without its controls."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ABOUT = {
    "retrieval": (
        "Retrieval",
        "A token of one survey looks for the same sky among another survey's tokens. Shuffled: "
        "the pairing is scrambled; blank: noise of the real noise and mask planes; random: the "
        "same encoder without training; pixels: raw pixels in place of tokens.",
    ),
    "position": (
        "Position",
        "Error of positions read out of frozen tokens at injected sources, per axis as the "
        "robust median. Bound: the Cramér–Rao limit; constant: the best constant answer.",
    ),
    "registration": (
        "Registration",
        "A known shift between two images, recovered from tokens, by phase correlation and from "
        "catalogues.",
    ),
    "alignment": (
        "Alignment of sources between surveys",
        "Offset of the same sources in two images, target less query, towards east (x) and north "
        "(y), in arcsec. Phase: the shift that phase correlation finds; turned: its strength when "
        "one image is turned, which is chance.",
    ),
    "photometry": (
        "Photometry",
        "True fluxes, colours and redshifts of sources, read out of frozen tokens of one survey or "
        "of all, by a regression fitted on training sky. Aperture: the same regression from that "
        "survey's aperture fluxes. Scatter in dex; of redshifts, of Δz / (1 + z).",
    ),
    "collapse": (
        "Use of the dimensions",
        "How many dimensions the tokens really use, and how much of that the surveys share; "
        "noise scores 0 on the shared figures.",
    ),
    "morphology": (
        "Morphology",
        "Sizes and ellipticities of galaxies read out of frozen tokens. Moments: the same "
        "regression from the images' moments.",
    ),
    "deblending": (
        "Deblending",
        "One source or two close ones, told from frozen tokens. Peaks: what peak finding says.",
    ),
    "reconstruction": (
        "Reconstruction",
        "One survey's image drawn from the other's frozen tokens by a small decoder: correlation "
        "with the true pixels of sources. Interpolation: from the other survey's image instead.",
    ),
    "transfer": (
        "Transfer",
        "Sky of another seeing and depth, seen by the same encoders and readouts, each figure "
        "over what that sky allows.",
    ),
    "withheld": (
        "Withheld survey or band",
        "What each figure loses when the encoders are not shown a survey or a band.",
    ),
}
CONTROLS = (
    "shuffled_", "blank_", "random_", "pixels_", "constant_", "bound_", "centroid_", "psf_fit_",
    "phase_", "catalogue_", "aperture_", "moments_", "peaks_", "interpolation_",
    "baseline_", "classical_", "chance_", "turned_",
)  # fmt: skip
FIRST = ("query", "target", "survey", "tokens", "scope", "n", "candidates")
FIGURES_FIRST = ("top1", "top5", "within_one", "participation_ratio", "dx_arcsec", "dy_arcsec")
SETTINGS = ("snr", "snr_min", "candidates", "shift_mas", "dimensions", "patches")
PERCENT = ("top1", "top5", "within_one", "share", "accuracy")
# Said under a table, once, rather than in every row.
BELOW = ("field", "token_arcsec", "interval_unit", "underpowered")
# Figures of evaluate that belong to a group of another name, and what they show.
FIGURES = {
    "retrieval": ("retrieval", "Top-1 retrieval with its interval, beside every control"),
    "ranks": ("retrieval", "Share of the sources that are found within a rank"),
    "similarity": ("retrieval", "Similarity of the same sources' tokens: matches on the diagonal"),
    "bands": ("retrieval", "Top-1 between single bands, whose surveys are outlined"),
    "position_empty": (
        "position",
        "Error of injected sources on sky without others, beside the bound and classical answers",
    ),
    "position_crowded": ("position", "The same on the crowded sky"),
    "transfer": ("transfer", "Error over the bound on the second field, and at home"),
    "registration": ("registration", "Error of a recovered shift, beside images and catalogues"),
    "photometry": ("photometry", "R² of true fluxes, colours and redshifts, beside apertures"),
    "morphology": ("morphology", "R² of sizes and ellipticities, beside moments"),
    "reconstruction": ("reconstruction", "Correlation with true pixels, beside interpolation"),
    "deblending": ("deblending", "One source or two: balanced accuracy, beside peak finding"),
    "withheld_retrieval": ("withheld", "What top-1 loses without each band"),
    "withheld_position": ("withheld", "What positions lose without each band or survey, mas"),
    "withheld_registration": ("withheld", "What a recovered shift loses without each band, mas"),
    "withheld_photometry": (
        "withheld",
        "What fluxes, colours and redshifts lose without each band or survey; bold: sure",
    ),
    "withheld_morphology": ("withheld", "What sizes and ellipticities lose"),
    "withheld_deblending": ("withheld", "What one source or two loses, in AUC"),
    "withheld_reconstruction": (
        "withheld",
        "What Pearson's r of another survey's images loses without each band; bold: sure",
    ),
    "spectrum": ("collapse", "Variance along the principal components of source tokens"),
    "alignment": ("alignment", "Offset of every source, target less query, and the median"),
}


@dataclass(frozen=True)
class Value:
    """One table cell: a figure and, where known, its interval."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Column:
    """One column: `kind` is setting, figure or control."""

    label: str
    kind: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """Rows of one group that share their columns."""

    columns: list[Column]
    rows: list[list[Value]]
    caption: str = ""

    @property
    def spans(self) -> list[tuple[str, int]]:
        """Runs of columns of one kind: (kind, how many)."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and runs[-1][0] == column.kind:
                runs[-1] = (column.kind, runs[-1][1] + 1)
            else:
                runs.append((column.kind, 1))
        return runs


@dataclass(frozen=True)
class Group:
    """One group of metrics: its tables, or why it was skipped."""

    name: str
    title: str
    about: str
    tables: list[Table] = field(default_factory=list)
    skipped: str = ""
    figures: list[Any] = field(default_factory=list)


def metric_groups(metrics: dict[str, Any]) -> list[Group]:
    """Every group of metrics.json, known ones first and in this order, then skipped ones."""
    found = metrics.get("groups", {})
    skipped = metrics.get("skipped", {})
    order = list(ABOUT)
    names = sorted(found, key=lambda name: (order.index(name) if name in ABOUT else 99, name))
    groups = [
        Group(name, *_about(name), tables=[_table(rows) for rows in _alike(found[name])])
        for name in names
        if found[name]
    ]
    return groups + [
        Group(name, *_about(name), skipped=str(skipped[name])) for name in sorted(skipped)
    ]


def figure(row: dict[str, Any], key: str) -> Value:
    """One figure of a row with its interval, as it is printed everywhere."""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    interval = "" if low is None or high is None else f"[{_bare(key, low)}, {_bare(key, high)}]"
    return Value(_printed(key, row.get(key)), interval)


def _about(name: str) -> tuple[str, str]:
    return ABOUT.get(name, (name.replace("_", " ").capitalize(), ""))


def _alike(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows gathered by their keys and by the kind of sky or view that they tell of."""
    gathered: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        of_bands = ":" in f"{row.get('query', '')}{row.get('target', '')}"
        figure = str(row.get("figure", "")).partition(" ")[0]
        kind = frozenset(row), row.get("sky"), "query" in row and of_bands, figure
        gathered.setdefault(kind, []).append(row)
    return list(gathered.values())


def _table(rows: list[dict[str, Any]]) -> Table:
    keys = [key for key in rows[0] if not _is_bound(key, rows[0]) and key not in BELOW]
    # What no row knows says nothing; what all rows share is said once, below.
    keys = [key for key in keys if any(row.get(key) is not None for row in rows)]
    kinds = {key: _kind(key, rows) for key in keys}
    shared = [
        key
        for key in keys
        if len(rows) > 1
        and kinds[key] == "setting"
        and key != "n"
        and len({str(row[key]) for row in rows}) == 1
    ]
    numeric = {key: _is_numeric(key, rows) for key in keys}
    shown = sorted(
        (key for key in keys if key not in shared),
        key=lambda key: _place(key, kinds[key], numeric[key]),
    )
    columns = [Column(_label(key), kinds[key], numeric[key]) for key in shown]
    return Table(
        columns, [[_cell(row, key) for key in shown] for row in rows], _caption(rows, shared)
    )


def _place(key: str, kind: str, numeric: bool) -> tuple[int, int]:
    """Where a column stands: what was asked, what came out, its controls by name, what they are."""
    if kind == "setting":
        return 0, FIRST.index(key) if key in FIRST else len(FIRST)
    if kind == "figure":
        return 1, FIGURES_FIRST.index(key) if key in FIGURES_FIRST else len(FIGURES_FIRST)
    control = next(i for i, start in enumerate(CONTROLS) if key.startswith(start))
    return (2, control) if numeric else (3, control)


def _cell(row: dict[str, Any], key: str) -> Value:
    value = figure(row, key)
    few = key == "n" and row.get("underpowered")
    return Value(f"{value.text} †") if few else value


def _caption(rows: list[dict[str, Any]], shared: list[str]) -> str:
    first = rows[0]
    said = [f"field {first['field']}"] if first.get("field") else []
    if first.get("token_arcsec"):
        said.append(f"tokens of {first['token_arcsec']:g}″")
    said += [f"{_label(key)} {_printed(key, first[key])}" for key in shared]
    if first.get("interval_unit"):
        said.append(f"95 % intervals, resampled by {first['interval_unit']}")
    if any(row.get("underpowered") for row in rows):
        said.append("† too few for a verdict")
    text = "; ".join(said)
    return text[:1].upper() + text[1:]


def _is_bound(key: str, row: dict[str, Any]) -> bool:
    return key.endswith(("_low", "_high")) and key.rpartition("_")[0] in row


def _is_numeric(key: str, rows: list[dict[str, Any]]) -> bool:
    values = [row.get(key) for row in rows]
    return all(v is None or isinstance(v, int | float) for v in values)


def _kind(key: str, rows: list[dict[str, Any]]) -> str:
    if key.startswith(CONTROLS):
        return "control"
    if key == "n" or key in SETTINGS or not _is_numeric(key, rows):
        return "setting"
    return "figure"


def _label(key: str) -> str:
    name = key.removesuffix("_mas")
    name = name.replace("within_one", "within 1 token").replace("snr", "S/N")
    name = name.replace("top1", "top 1").replace("top5", "top 5").replace("r2", "R²")
    name = name.replace("rankme", "RankMe").replace("_", " ")
    if key.endswith(PERCENT):
        return f"{name}, %"
    if key.endswith("_arcsec"):
        return f"{name.removesuffix(' arcsec')}, ″"
    return f"{name}, mas" if key.endswith("_mas") else name


def _printed(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _bare(key, value) if isinstance(value, int | float) else str(value)


def _bare(key: str, value: int | float) -> str:
    """A number without its unit: per cent, tenths of mas, or three digits."""
    if not math.isfinite(value):
        return "–"
    if key.endswith(PERCENT):
        return _minus(f"{100 * value:.1f}")
    if key.endswith("_mas"):
        return _minus(f"{value:.1f}")
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10):
        return _minus(f"{int(value):,}".replace(",", "\u202f"))
    if key.endswith("_arcsec"):
        return _minus(f"{value:.4f}")
    return _minus(f"{value:.2f}" if 0.01 <= abs(value) < 10 else f"{value:.3g}")


def _minus(text: str) -> str:
    return text.replace("-", "\u2212") if "e" not in text else text
