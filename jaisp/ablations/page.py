"""The page of all arms: tables by question, from whatever has been measured so far."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from itertools import chain

from jaisp.ablations.arms import Ablations
from jaisp.ablations.figures import (
    CONTROLS,
    RETRIEVED,
    SNRS,
    TOLD,
    Figure,
    Figures,
    over_seeds,
    position_name,
)
from jaisp.ablations.one import read_failure
from jaisp.ablations.record import Arms, Differences, gather
from jaisp.files import write_text

HEAD = """# What is each part of the model and the objective worth?

Each arm is one short training that differs from another in one thing. This page is made from
`{file}` by `make ablations`, never by hand ([how to add an arm](ablate.md)); what made
things worse stays on it. {done} of {all} trainings are done.

{facts}

- *top-1*: share of held-out sources whose token finds its own place in the other survey, among the
  sources of the whole held-out field; mean of both ways. *right place*: the best of all tokens
  around, sky too, is the right one or next to it.
- *participation ratio*: how many directions carry the variance of a survey's tokens; *shared*: of
  what two surveys have in common; *above ½*: canonical correlations above a half on sky that they
  were not fitted on.
- *position*: median error of a readout of tokens on empty sky, over the Cramér–Rao bound, by S/N.
  `{across}`: a readout of the first survey's tokens, applied to the second's.
- *told*: R² of regressions from one survey's tokens, on sources whose truth is known, a mean over
  both surveys and all bands: log fluxes of its own bands and of the other survey's, colours of
  neighbouring bands, redshifts, half-light radii and ellipticities. *aperture* and *moments* are
  the same from the survey's own classical measurements.
- *seconds* of training, evaluation not counted; arms may have run side by side.
- Small figures are 95 % intervals by resampled patches of sky, of one seed; ± is the standard
  deviation over seeds. Differences are paired: the same sources in both arms, the same seeds.
  **Bold** ones have an interval without 0, over seeds by Student's t. An interval over sky doesn't
  hold what another seed would change, and of twenty differences that are none, one is bold by
  chance. The arm that one is taken from is of the config, code and seed that stand here, but may be
  another training of it: trained again on another machine, an arm is not the same to the bit.
- † was made with other code than the present. [ruler.md](ruler.md) defines every figure.
"""

Row = list[str]
NO_FIGURE = "–"
SHARED = ("shared_participation_ratio", "canonical_above_half")
UNDERPOWERED = 1000  # injected sources


def write_page(ablations: Ablations) -> str:
    """Write the page, with the arms that are done; returns its text."""
    text = Page(ablations, *gather(ablations)).text()
    write_text(ablations.listed.page, text)
    return text


class Page:
    """The page's text, from what is measured of each arm and seed, and how far arms are apart."""

    def __init__(self, ablations: Ablations, found: Arms, apart: Differences) -> None:
        self.ablations, self.found, self.apart = ablations, found, apart
        first, second, *_ = self.surveys = list(next(iter(ablations.bases.values())).surveys)
        self.across = f"{first}>{second}"
        whose = [*self.surveys, "both", self.across]
        self.positions = [(name, snr) for name in whose for snr in SNRS]

    def text(self) -> str:
        """All of it, as Markdown."""
        head = HEAD.format(
            file=self.ablations.path.as_posix(),
            done=sum(map(len, self.found.values())),
            all=len(self.ablations.runs),
            facts=self._facts(),
            across=self.across,
        )
        groups = dict.fromkeys(arm.group for arm in self.ablations.listed.arms.values())
        return "\n".join([head, *self._controls(), *chain.from_iterable(map(self._group, groups))])

    def _facts(self) -> str:
        """On what the arms were trained, and on how many sources they were measured."""
        done = [measured for own in self.found.values() for measured in own.values()]
        if not done:
            return "No arm has been run yet."
        timings = {
            f"{own.timing['machine']}, threads of an arm: {own.timing['threads']}" for own in done
        }
        sources = [own.figures["top-1"].n for own in done if "top-1" in own.figures]
        names = [position_name(*position) for position in self.positions]
        injected = [own.figures[n].n for own in done for n in names if n in own.figures]
        few = (
            ": fewer than 1,000, so that small differences of positions mean little"
            if injected and max(injected) < UNDERPOWERED
            else ""
        )
        text = (
            f"Trained on {'; '.join(sorted(timings))}. Measured on {_range(sources)} held-out "
            f"sources, positions on {_range(injected)} injected ones each{few}."
        )
        return textwrap.fill(text, 100)

    def _controls(self) -> list[str]:
        """What chance, other networks and plain pixels come to, beside the reference arm."""
        reference = self.ablations.listed.reference
        seeds = list(self.found[reference].values())
        if not seeds:
            return []
        controls = seeds[0].controls
        rows = [[name, *self._controlled(controls[name])] for name in CONTROLS if name in controls]
        rows.insert(0, [reference, *self._controlled(seeds[0].figures)])
        header = ["", "top-1", *self._position_titles(), *TOLD]
        return ["## The reference arm and its controls", "", *_table(header, rows)]

    def _controlled(self, figures: Figures) -> Row:
        names = ["top-1", *(position_name(*position) for position in self.positions), *TOLD]
        return [_cell(figures.get(name), _format_of(name)) for name in names]

    def _group(self, group: str) -> list[str]:
        """The tables of one question."""
        listed = self.ablations.listed.arms
        own = [name for name, arm in listed.items() if arm.group == group]
        compared = dict.fromkeys(self.ablations.against(name) for name in own)
        arms = [*(name for name in compared if name not in own), *own]
        lines = [f"## {group[0].upper()}{group[1:]}", ""]
        header = ["arm", "what it is", *self._titles(), "seconds"]
        lines += _table(header, [self._figures(arm) for arm in arms])
        done = [arm for arm in arms if self.found[arm]]
        if done:
            header = ["position over the bound", *self._position_titles()]
            lines += _table(header, [[arm, *self._places(arm)] for arm in done])
            lines += _table(["told", *TOLD], [[arm, *self._told(arm)] for arm in done])
        rows = [row for arm in own if (row := self._differences(arm))]
        if rows:
            header = ["difference", "from", *RETRIEVED, *self._position_titles()]
            lines += _table(header, rows)
        return lines

    def _titles(self) -> Row:
        spreads = [f"participation ratio, {survey}" for survey in self.surveys]
        return ["n", *RETRIEVED, *spreads, "shared", "above ½"]

    def _position_titles(self) -> Row:
        return [f"{name}, S/N {snr:g}" for name, snr in self.positions]

    def _figures(self, arm: str) -> Row:
        what, seeds = self.ablations.listed.arms[arm].what, list(self.found[arm].values())
        columns = len(self._titles())
        if not seeds:
            failures = (read_failure(self.ablations, arm, s) for s in self.ablations.seeds(arm))
            why = next((f"failed: {failure}" for failure in failures if failure), "not yet run")
            return [arm, what, why, *[NO_FIGURE] * columns]
        figures = over_seeds([own.figures for own in seeds])
        pairs = sorted(name.partition(" ")[2] for name in figures if name.startswith("shared_"))
        names = [f"participation_ratio {survey}" for survey in self.surveys]
        names += [f"{name} {pair}" for pair in pairs[:1] for name in SHARED]
        cells = [_cell(figures.get(name), _format_of(name)) for name in (*RETRIEVED, *names)]
        cells += [NO_FIGURE] * (columns - 1 - len(cells))
        stale = "" if all(own.is_current for own in seeds) else " †"
        n = str(figures["top-1"].n) if "top-1" in figures else NO_FIGURE
        seconds = sum(own.timing["seconds"] for own in seeds) / len(seeds)
        return [f"{arm}{stale}", what, n, *cells, f"{seconds:.0f}"]

    def _places(self, arm: str) -> Row:
        figures = over_seeds([own.figures for own in self.found[arm].values()])
        names = [position_name(*position) for position in self.positions]
        return [_cell(figures.get(name), _format_of(name)) for name in names]

    def _told(self, arm: str) -> Row:
        figures = over_seeds([own.figures for own in self.found[arm].values()])
        return [_cell(figures.get(name), _format_of(name)) for name in TOLD]

    def _differences(self, arm: str) -> Row:
        """Nothing for an arm that is compared with none, or on other sky."""
        own = list(self.apart[arm].values())
        if not any(own):
            return []
        figures = over_seeds(own)
        names = [*RETRIEVED, *(position_name(*position) for position in self.positions)]
        cells = [_cell(figures.get(name), f"+{_format_of(name)}") for name in names]
        bold = [_is_clear(figures.get(name)) for name in names]
        against = self.ablations.against(arm)
        return [arm, against, *(f"**{c}**" if b else c for c, b in zip(cells, bold, strict=True))]


def _is_clear(figure: Figure | None) -> bool:
    return figure is not None and (figure.low > 0 or figure.high < 0)


def _format_of(name: str) -> str:
    if name in RETRIEVED:
        return ".3f"
    if name in TOLD:
        return ".2f"
    return ".0f" if name.startswith("canonical") else ".1f"


def _cell(figure: Figure | None, style: str) -> str:
    if figure is None or not math.isfinite(figure.value):
        return NO_FIGURE
    value = _number(figure.value, style)
    if figure.seeds > 1:
        return f"{value} ± {_number(figure.spread, style.lstrip('+'))}"
    if math.isfinite(figure.low) and math.isfinite(figure.high):
        return f"{value} <sub>{_number(figure.low, style)} to {_number(figure.high, style)}</sub>"
    return value


def _number(value: float, style: str) -> str:
    if abs(value) >= 100:
        style = style.replace(".1f", ".0f")
    text = f"{value:{style}}"
    return text.replace("-", "−")


def _range(values: Sequence[int]) -> str:
    if not values:
        return "no"
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _table(header: Row, rows: Iterable[Row]) -> list[str]:
    rule = f"|{'---|' * len(header)}"
    return [_line(header), rule, *map(_line, rows), ""]


def _line(row: Row) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
