"""The parts of an evaluation: groups that share what they look at, measured together.

Each part can be run by itself, so that parts run side by side.
"""

from collections.abc import Callable

from jaisp.evaluate.alignment import alignment
from jaisp.evaluate.bands import band_retrieval
from jaisp.evaluate.bench import Bench
from jaisp.evaluate.collapse import collapse
from jaisp.evaluate.found import Found, found, skipped
from jaisp.evaluate.means import mean_tokens
from jaisp.evaluate.plots.alignment import alignment_plots
from jaisp.evaluate.plots.bands import band_plots
from jaisp.evaluate.plots.collapse import collapse_plots
from jaisp.evaluate.plots.retrieval import retrieval_plots
from jaisp.evaluate.plots.withheld import withheld_plots
from jaisp.evaluate.retrieval import retrieval
from jaisp.evaluate.views import encode_sky
from jaisp.evaluate.withheld import retrieval_figures, withheld


def measure_retrieval(bench: Bench) -> Found:
    """Retrieval between surveys, collapse, and what withheld bands cost, on the same tokens."""
    names = ("retrieval", "collapse", "withheld")
    if bench.why_not is not None:
        return skipped(names, bench.why_not)
    store, settings = bench.store, bench.settings
    sky = encode_sky(store, bench.test, bench.catalogues, bench.every, settings)
    means = mean_tokens(store, bench.train, bench.seeing, settings)
    rows, pairs = retrieval(sky, means, settings, bench.outcomes)
    if not rows:
        return skipped(names, _no_source(bench))
    spread, spectra = collapse(sky, means, settings)
    figures = retrieval_figures(store, bench.train, sky, means, bench.every, settings)
    losses = withheld(figures, bench.bands, settings, bench.outcomes)
    plots = [*retrieval_plots(rows, pairs), *collapse_plots(spectra), *withheld_plots(losses)]
    groups = {"retrieval": rows, "collapse": spread, "withheld": losses}
    return found(groups, plots, "no survey has a band to spare")


def measure_bands(bench: Bench) -> Found:
    """Retrieval between single bands."""
    if bench.why_not is not None:
        return skipped(("retrieval",), bench.why_not)
    known = (bench.store, bench.test, bench.train, bench.catalogues, bench.every, bench.settings)
    rows = band_retrieval(*known, bench.outcomes)
    return found({"retrieval": rows}, band_plots(rows), _no_source(bench))


def measure_alignment(bench: Bench) -> Found:
    """Where the surveys put the same sky; no encoder is involved."""
    rows, pairs = alignment(bench.store, bench.settings)
    reason = "no patch is covered by two bands"
    return found({"alignment": rows}, alignment_plots(pairs), reason)


def _no_source(bench: Bench) -> str:
    return f"no source above S/N {bench.settings.snr_min:g} in two surveys on held-out sky"


MEASURES: dict[str, Callable[[Bench], Found]] = {
    "retrieval": measure_retrieval,
    "bands": measure_bands,
    "alignment": measure_alignment,
}
