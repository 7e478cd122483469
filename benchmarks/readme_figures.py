"""Write the figures of README and docs/real-fields.md from the runs that are at hand.

    make figures        (after `make run ruler`, `make real real-wide` and config/reference.yaml)

Reads results/RUN/metrics.json of the demo, the reference, the full ruler and the four real fields,
and the benchmarks' results in docs/benchmarks, and replaces what stands between the markers
`<!-- figures … -->` and `<!-- /figures -->`, and between those of other names, in README,
docs/ruler.md, docs/archives.md and docs/real-fields.md; copies the demo's picture. Rows of
fields that were not run here stay.
"""

import json
import re
from pathlib import Path

from PIL import Image
from predecessor import predecessor_table

ROOT = Path(__file__).resolve().parent.parent
SIMULATED = ("demo", "reference", "ruler")
FIELDS = (*SIMULATED, "kids_viking_wide", "kids_viking_galex", "euclid_des", "hsc_hst")
PICTURE = ROOT / "docs" / "images" / "overview.png"
PICTURE_WIDTH = 1600


def read_metrics(run: str) -> dict | None:
    """The metrics of a run, or None where it was not made."""
    path = ROOT / "results" / run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def retrieval_table(runs: dict[str, dict]) -> list[str]:
    """Retrieval of sources across surveys over the whole held-out field, with controls."""
    lines = [
        "| field | from → to | sources | candidates | top-1 | 95 % | top-5 | shuffled | blank "
        "| random | pixels |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run, metrics in runs.items():
        for row in metrics["groups"].get("retrieval", []):
            of_bands = ":" in row["query"]
            if (row["tokens"], row["scope"]) == ("source", "field") and not of_bands:
                interval = f"{row['top1_low']:.2f}–{row['top1_high']:.2f}"
                controls = [
                    f"{row[f'{name}_top1']:.3f}" for name in ("shuffled", "blank", "random")
                ]
                lines.append(
                    f"| {run} | {row['query']} → {row['target']} | {row['n']} | "
                    f"{row['candidates']} | **{row['top1']:.2f}** | {interval} | "
                    f"{row['top5']:.2f} | {' | '.join(controls)} | {row['pixels_top1']:.2f} |"
                )
    return lines


def collapse_table(runs: dict[str, dict]) -> list[str]:
    """How many dimensions the tokens of held-out sources use."""
    lines = [
        "| field | survey | tokens | participation ratio | RankMe | top-five share |",
        "|---|---|---|---|---|---|",
    ]
    for run, metrics in runs.items():
        for row in metrics["groups"].get("collapse", []):
            if "survey" in row and row.get("participation_ratio") is not None:
                lines.append(
                    f"| {run} | {row['survey']} | {row['n']} | {row['participation_ratio']:.1f} of "
                    f"{row['dimensions']} | {row['rankme']:.1f} | {row['top5_share']:.2f} |"
                )
    return lines


def alignment_table(runs: dict[str, dict]) -> list[str]:
    """Median offsets of sources between surveys, and phase correlation beside them."""
    lines = [
        "| field | from → to | sources | east ″ | north ″ | phase east ″ | phase north ″ |",
        "|---|---|---|---|---|---|---|",
    ]
    for run, metrics in runs.items():
        for row in metrics["groups"].get("alignment", []):
            offsets = ("dx_arcsec", "dy_arcsec", "phase_dx_arcsec", "phase_dy_arcsec")
            shown = ["–" if row[name] is None else f"{row[name]:+.3f}" for name in offsets]
            lines.append(
                f"| {run} | {row['query']} → {row['target']} | {row['n']} | {' | '.join(shown)} |"
            )
    return lines


def position_table(runs: dict[str, dict]) -> list[str]:
    """Error of positions read off the shared tokens of injected sources, in mas."""
    lines = [
        "| field | sky | whose tokens | S/N | n | tokens | 95 % | bound | PSF fit | centroid "
        "| random | blank | shuffled | constant |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = ("bound", "psf_fit", "centroid", "random", "blank", "shuffled", "constant")
    for run, metrics in runs.items():
        for row in metrics["groups"].get("position", []):
            if row["readout"] not in ("tokens", "agreed"):
                continue
            whose = row["survey"] + (", agreed" if row["readout"] == "agreed" else "")
            interval = f"{row['median_mas_low']:.1f}–{row['median_mas_high']:.1f}"
            beside = [row[f"{name}_mas"] for name in names]
            shown = ["–" if value is None else f"{value:.1f}" for value in beside]
            few = " †" if row["underpowered"] else ""
            lines.append(
                f"| {run} | {row['sky']} | {whose} | {row['snr']:g} | {row['n']}{few} | "
                f"**{row['median_mas']:.1f}** | {interval} | {' | '.join(shown)} |"
            )
    return lines


def sharpness_table(metrics: dict) -> list[str]:
    """Positions off tokens, beside bound, PSF fit and fresh weights, in mas: a row a survey, and a
    readout of one survey's tokens that the other's agree with."""
    levels = (10, 30, 100)
    lines = [
        "| sky | whose tokens | n | " + " | ".join(f"S/N {level}" for level in levels) + " |",
        "|---" * (3 + len(levels)) + "|",
    ]
    found: dict[tuple[str, str], dict[float, dict]] = {}
    for row in metrics["groups"].get("position", []):
        wanted = "agreed" if ">" in row["survey"] else "tokens"
        if row["readout"] == wanted:
            found.setdefault((row["sky"], row["survey"]), {})[row["snr"]] = row
    names = ("bound", "psf_fit", "random")
    for (sky, survey), rows in found.items():
        own = [rows[level] for level in levels if level in rows]
        cells = [
            " · ".join([f"**{row['median_mas']:.1f}**", *(f"{row[f'{n}_mas']:.1f}" for n in names)])
            for row in own
        ]
        count = f"{min(row['n'] for row in own)}–{max(row['n'] for row in own)}"
        lines.append(f"| {sky} | {survey.replace('>', ' → ')} | {count} | {' | '.join(cells)} |")
    return lines


def bound_table(found: dict) -> list[str]:
    """A PSF fit against the bound, and what noise-free stars lose by the warp."""
    lines = [
        "| band | S/N | n | bound, mas | rms of the fit over the bound | 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for band, rows in found["efficiency"].items():
        for row in rows:
            lines.append(
                f"| {band} | {row['snr']:g} | {row['n']} | {row['bound_mas']:.2f} | "
                f"{row['fit_over_bound']:.3f} | {row['low']:.3f}–{row['high']:.3f} |"
            )
    names = ("centroid", "fit", "centroid after the warp", "fit after the warp")
    lines += ["", f"| noise-free stars, rms in mas | n | {' | '.join(names)} |"]
    lines.append("|---|---|---|---|---|---|")
    for band, row in found["floor"].items():
        values = [row.get(f"{name}, mas") for name in names]
        shown = ["–" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"| {band} | {row['n']} | {' | '.join(shown)} |")
    return lines


PARTS = ("read", "kernel", "encode", "compress")


def kernel_table(found: dict) -> list[str]:
    """Resampling by ours and by its peers."""
    lines = [
        "| one thread unless said | Mpix/s | ours is faster by | centroid rms, mas |",
        "|---|---|---|---|",
    ]
    for name, row in found["kernel"].items():
        centroid = "" if row["centroid_rms_mas"] is None else f"{row['centroid_rms_mas']:.2f}"
        lines.append(
            f"| {name} | {row['mpix_per_s']:.1f} | {row['ours_faster_by']:.1f} | {centroid} |"
        )
    lines += [
        "",
        f"{found['machine']}. The whole stage, FITS in and store out, on overlapping tiles:",
        "",
    ]
    lines += [
        "| field of 100 patches | CPU s | read | kernel | encode | compress | whole over these | "
        "patches a second a core |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["stage"].items():
        seconds = row["cpu_s"]
        parts = " | ".join(f"{seconds[part]:.1f}" for part in PARTS)
        lines.append(
            f"| {name} | {seconds['whole']:.1f} | {parts} | {row['whole_over_parts']:.2f} | "
            f"{row['patches_per_s_per_core']:.1f} |"
        )
    return lines


def store_table(found: dict) -> list[str]:
    """Our store and other formats of the same patches."""
    lines = [
        "| format | size over float32 | write, time over ours | read, time over ours | "
        "variance added | brightest, σ |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["formats"].items():
        lines.append(
            f"| {name} | {row['size']:.3f} | {row['write_s_over_ours']:.2f} | "
            f"{row['read_s_over_ours']:.2f} | {100 * row['noise_added']:.2f} % | "
            f"{row['brightest_sigma']:.0e} |"
        )
    return lines


def loader_table(found: dict) -> list[str]:
    """Our loader and others of the same batches."""
    lines = ["| loader | over a memmap of int16, same workers |", "|---|---|"]
    for name, row in found["loaders"].items():
        lines.append(f"| {name} | {row['over_memmap_int16']:.2f} |")
    return lines


def fetch_table(found: dict) -> list[str]:
    """Fetching against curl."""
    lines = [
        "| what | curl, MB/s | ours, MB/s | ours over curl | in one process, over curl "
        "| curl, CPU s/GB | ours, CPU s/GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        if not isinstance(row, dict):
            continue
        lines.append(
            f"| {name} | {row['curl, MB/s']:.0f} | {row['ours, MB/s']:.0f} | "
            f"**{row['ours, over curl']:.2f}** | {row['ours, one process, over curl']:.2f} | "
            f"{row['curl, CPU s/GB']:.1f} | {row['ours, CPU s/GB']:.1f} |"
        )
    return [*lines, "", f"{found['machine']}; load average before: {found['load before']:.1f}."]


def estimate_table(found: dict) -> list[str]:
    """What a run took over what was foreseen of it."""
    stages = dict.fromkeys(row["stage"] for row in found["rows"])
    kinds = dict.fromkeys(row["what"] for row in found["rows"])
    ratios = {(row["stage"], row["what"]): f"{row['ratio']:.2f}" for row in found["rows"]}
    lines = [f"| stage | {' | '.join(kinds)} |", "|---" * (1 + len(kinds)) + "|"]
    lines += [
        f"| {stage} | {' | '.join(ratios.get((stage, kind), '') for kind in kinds)} |"
        for stage in stages
    ]
    return [*lines, "", f"{found['machine']}."]


def replace_figures(path: Path, lines: list[str], name: str = "figures") -> None:
    """Put `lines` between the markers of a page."""
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"(<!-- {name}[^>]*-->\n)(.*?)(<!-- /{name} -->)", text, flags=re.DOTALL)
    if found is None:
        raise SystemExit(f"{path}: no place for the figures")
    body = "\n".join(with_kept_rows(lines, found[2].splitlines()))
    text = f"{text[: found.end(1)]}{body}\n{text[found.start(3) :]}"
    path.write_text(text, encoding="utf-8")


def with_kept_rows(lines: list[str], old: list[str]) -> list[str]:
    """The new tables, with the old rows of fields that have none here."""
    kept: list[str] = []
    for number, line in enumerate(lines):
        kept.append(line)
        after = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("|") and not after.startswith("|"):
            start = max(k for k in range(number + 1) if lines[k].startswith("|---")) - 1
            fields = {_field(row) for row in lines[start + 2 : number + 1]}
            kept += [row for row in rows_below(lines[start], old) if _field(row) not in fields]
    return kept


def rows_below(header: str, old: list[str]) -> list[str]:
    """The rows of fields of the old table with this header."""
    if header not in old:
        return []
    rows = []
    for row in old[old.index(header) + 2 :]:
        if not row.startswith("|"):
            break
        rows.append(row)
    return [row for row in rows if _field(row) in FIELDS]


def _field(row: str) -> str:
    return row.split("|")[1].strip()


def main() -> None:
    """Write every page."""
    runs = {run: m for run in FIELDS if (m := read_metrics(run)) is not None}
    wide = "kids_viking_wide"
    claimed = {run: m for run, m in runs.items() if run in ("demo", "reference", wide)}
    replace_figures(ROOT / "README.md", retrieval_table(claimed))
    # The long training, and the demo's sky and training on more sources.
    most = {run: m for run, m in runs.items() if run in ("reference", "ruler", wide)}
    replace_figures(ROOT / "docs" / "ruler.md", position_table(most), "position")
    found = json.loads((ROOT / "docs" / "benchmarks" / "bound.json").read_text("utf-8"))
    replace_figures(ROOT / "docs" / "ruler.md", bound_table(found), "bound")
    if (longest := runs.get("reference", runs.get("ruler"))) is not None:
        table = predecessor_table(longest)
        replace_figures(ROOT / "docs" / "ruler.md", table, "predecessor")
    if "reference" in runs:
        replace_figures(ROOT / "README.md", sharpness_table(runs["reference"]), "sharpness")
    for name, table in (("warp", kernel_table), ("store", store_table), ("loader", loader_table)):
        found = json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text("utf-8"))
        replace_figures(ROOT / "README.md", table(found), name)
    found = json.loads((ROOT / "docs" / "benchmarks" / "fetch.json").read_text("utf-8"))
    replace_figures(ROOT / "docs" / "archives.md", fetch_table(found), "fetch")
    found = json.loads((ROOT / "docs" / "benchmarks" / "estimate.json").read_text("utf-8"))
    replace_figures(ROOT / "docs" / "scale.md", estimate_table(found), "estimate")
    real = {run: metrics for run, metrics in runs.items() if run not in SIMULATED}
    tables = (retrieval_table, collapse_table, alignment_table)
    titles = ("Retrieval on held-out sky", "Dimensions in use", "Alignment of sources")
    lines = [x for t, f in zip(titles, tables, strict=True) for x in (f"### {t}", "", *f(real), "")]
    replace_figures(ROOT / "docs" / "real-fields.md", lines)
    overview = ROOT / "results" / "demo" / "figures" / "overview.png"
    if overview.is_file():
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(overview) as image:
            height = round(image.height * PICTURE_WIDTH / image.width)
            smaller = image.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
            smaller.quantize(256).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
