"""The parts of an evaluation: groups that share what they look at, measured together.

Each part can be run by itself, so that parts run side by side.
"""

from collections.abc import Callable

from jaisp.evaluate.alignment import alignment
from jaisp.evaluate.bench import Bench
from jaisp.evaluate.collapse import collapse
from jaisp.evaluate.measured import Measured, measured, skipped
from jaisp.evaluate.plots.alignment import alignment_plots
from jaisp.evaluate.plots.collapse import collapse_plots
from jaisp.evaluate.plots.retrieval import retrieval_plots
from jaisp.evaluate.retrieval import retrieval


def measure_retrieval(bench: Bench) -> Measured:
    """Retrieval between surveys, and collapse, on the same tokens."""
    names = ("retrieval", "collapse")
    if bench.why_not is not None:
        return skipped(names, bench.why_not)
    sky = bench.encoded(bench.every)
    rows, pairs = retrieval(sky, bench.training_means(), bench.settings)
    spread, spectra = collapse(sky, bench.settings)
    plots = [*retrieval_plots(rows, pairs), *collapse_plots(spectra)]
    reason = f"no source above S/N {bench.settings.snr_min:g} in two surveys on held-out sky"
    return measured({"retrieval": rows, "collapse": spread}, plots, reason)


def measure_alignment(bench: Bench) -> Measured:
    """Where the surveys put the same sky; no encoder is involved."""
    rows, pairs = alignment(bench.store, bench.settings)
    reason = "no patch is covered by two bands"
    return measured({"alignment": rows}, alignment_plots(pairs), reason)


MEASURES: dict[str, Callable[[Bench], Measured]] = {
    "retrieval": measure_retrieval,
    "alignment": measure_alignment,
}
