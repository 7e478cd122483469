"""The parts of an evaluation: groups that share what they look at, measured together.

Each part can be run by itself, so that parts run side by side.
"""

from collections.abc import Callable

from jaisp.evaluate.alignment import alignment
from jaisp.evaluate.away import at_home, away_from_home, join_skies
from jaisp.evaluate.bands import band_retrieval
from jaisp.evaluate.bench import Bench
from jaisp.evaluate.collapse import collapse
from jaisp.evaluate.deblending import deblending
from jaisp.evaluate.found import Found, found, skipped
from jaisp.evaluate.known import SIMULATED, features_of, known_sky
from jaisp.evaluate.means import mean_tokens
from jaisp.evaluate.morphology import morphology
from jaisp.evaluate.photometry import (
    photometry,
    photometry_answers,
    photometry_figures,
    photometry_rows,
    photometry_targets,
)
from jaisp.evaluate.plots.alignment import alignment_plots
from jaisp.evaluate.plots.bands import band_plots
from jaisp.evaluate.plots.collapse import collapse_plots
from jaisp.evaluate.plots.deblending import deblending_plots
from jaisp.evaluate.plots.morphology import morphology_plots
from jaisp.evaluate.plots.photometry import photometry_plots
from jaisp.evaluate.plots.position import position_plots
from jaisp.evaluate.plots.reconstruction import reconstruction_plots
from jaisp.evaluate.plots.registration import registration_plots
from jaisp.evaluate.plots.retrieval import retrieval_plots
from jaisp.evaluate.plots.transfer import transfer_plots
from jaisp.evaluate.plots.withheld import withheld_plots
from jaisp.evaluate.position import asked_of, fit_readouts, position_rows, seen_of
from jaisp.evaluate.reconstruction import reconstruction
from jaisp.evaluate.registration import registration
from jaisp.evaluate.retrieval import retrieval
from jaisp.evaluate.transfer import photometry_transfer, position_transfer
from jaisp.evaluate.views import encode_sky
from jaisp.evaluate.withheld import retrieval_figures, withheld
from jaisp.evaluate.withheld_position import position_figures

NO_SECOND_FIELD = "no second field: one is made of simulated surveys alone"
NO_SHAPES = "no truth: sizes and shapes are known of simulated sources alone"


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


def measure_position(bench: Bench) -> Found:
    """Positions of injected sources, on empty and on crowded sky, without a survey, and on another
    field."""
    names = ("position", "transfer")
    home = bench.known_sky("empty")
    if bench.why_not is not None or home is None:
        return skipped(names, bench.why_not or bench.why_no_sky)
    settings, encoders, outcomes = bench.settings, bench.with_blank, bench.outcomes
    seen = seen_of(home, encoders, settings)
    at_home = asked_of(home, seen, settings)
    fitted = fit_readouts(at_home, settings)
    rows = position_rows(at_home, fitted, settings, outcomes)
    figures = position_figures(home, seen, encoders, settings)
    losses = withheld(figures, bench.bands, settings, outcomes)
    crowded = bench.known_sky("crowded")
    if crowded is not None:
        asked = asked_of(crowded, seen_of(crowded, encoders, settings), settings)
        rows += position_rows(asked, fit_readouts(asked, settings), settings, outcomes)
    groups = {"position": rows, "withheld": losses, "transfer": []}
    second = bench.known_sky("second_empty")
    if second is not None:
        asked = asked_of(second, seen_of(second, encoders, settings), settings)
        groups["transfer"] = position_transfer(fitted, at_home, asked, settings)
    plots = [*position_plots(rows), *transfer_plots(groups["transfer"])]
    others = {} if second is not None else {"transfer": NO_SECOND_FIELD}
    return found(groups, plots, "too few injected sources to fit a readout on", others)


def measure_registration(bench: Bench) -> Found:
    """Known shifts of one survey, recovered."""
    sky = bench.known_sky("displaced")
    if bench.why_not is not None or sky is None:
        return skipped(("registration",), bench.why_not or bench.why_no_sky)
    rows = registration(bench.store, sky, bench.with_blank, bench.settings)
    reason = "too few sources in both surveys to fit a readout on"
    return found({"registration": rows}, registration_plots(rows), reason)


def measure_deblending(bench: Bench) -> Found:
    """One source or two."""
    sky = bench.known_sky("pairs")
    if bench.why_not is not None or sky is None:
        return skipped(("deblending",), bench.why_not or bench.why_no_sky)
    rows = deblending(sky, bench.with_blank, bench.settings)
    reason = "too few injected pairs to fit a probe on"
    return found({"deblending": rows}, deblending_plots(rows), reason)


def measure_truth(bench: Bench) -> Found:
    """Fluxes, shapes and images of sources with known truth, or with sep's apertures for it; then
    without a survey, and fluxes on another field."""
    names = ("photometry", "morphology", "reconstruction")
    if bench.why_not is not None or bench.results is None:
        return skipped(names, bench.why_not or "measured within a run alone")
    settings, outcomes = bench.settings, bench.outcomes
    known = known_sky(bench.store, settings, bench.results / "simulated" / "truth.ecsv")
    if known is None:
        return skipped(names, f"no source above S/N {settings.snr_min:g}")
    second = bench.known_sky("second")
    truth = bench.results / "injected" / "second" / "simulated" / "truth.ecsv"
    there = None if second is None else known_sky(second.store, settings, truth)
    joined = known if there is None else join_skies(known, there)
    everything = features_of(joined, bench.with_blank, settings)
    known, seen = at_home(joined, everything)
    targets = list(photometry_targets(known))
    answers = photometry_answers(known, seen, targets, settings)
    rows = photometry_rows(known, targets, answers, settings, outcomes)
    figures = photometry_figures(known, targets, answers)
    shapes, images = morphology(known, seen, settings), reconstruction(known, seen, settings)
    groups = {
        "photometry": rows,
        "morphology": shapes,
        "reconstruction": images,
        "withheld": withheld(figures, bench.bands, settings, outcomes),
        "transfer": [],
    }
    if there is not None:
        away = photometry(*away_from_home(joined, everything), settings)
        groups["transfer"] = photometry_transfer(rows, away, ("survey", "target"))
    plots = [*photometry_plots(rows), *morphology_plots(shapes), *reconstruction_plots(images)]
    others = {} if known.truth == SIMULATED else {"morphology": NO_SHAPES}
    others |= {} if there is not None else {"transfer": NO_SECOND_FIELD}
    return found(groups, plots, "too few sources to fit a probe on", others)


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
    "position": measure_position,
    "registration": measure_registration,
    "deblending": measure_deblending,
    "truth": measure_truth,
    "alignment": measure_alignment,
}
