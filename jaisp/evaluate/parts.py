"""What an evaluation measures, by name: groups that share what they look at, together.

`jaisp.config.evaluate.PARTS` says which of them a job measures.
"""

from collections.abc import Callable

from jaisp.evaluate.alignment import alignment
from jaisp.evaluate.away import at_home, away_from_home, join_skies
from jaisp.evaluate.bands import band_retrieval
from jaisp.evaluate.bench import Bench
from jaisp.evaluate.collapse import collapse
from jaisp.evaluate.deblending import blends_of, deblending_rows, fit_scorers, pairs_seen
from jaisp.evaluate.found import Found, found, skipped
from jaisp.evaluate.known import SIMULATED, known_sky
from jaisp.evaluate.means import mean_tokens
from jaisp.evaluate.morphology import morphology_regressions, morphology_rows
from jaisp.evaluate.photometry import (
    photometry,
    photometry_regressions,
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
from jaisp.evaluate.position import (
    asked_of,
    fit_readouts,
    position,
    position_rows,
    seen_of,
)
from jaisp.evaluate.reconstruction import fit_decoders, reconstruction_rows
from jaisp.evaluate.registration import registered
from jaisp.evaluate.retrieval import retrieval
from jaisp.evaluate.seen import features_of
from jaisp.evaluate.transfer import photometry_transfer, position_transfer
from jaisp.evaluate.views import encode_sky
from jaisp.evaluate.withheld import retrieval_figures, withheld
from jaisp.evaluate.withheld_deblending import deblending_figure
from jaisp.evaluate.withheld_known import (
    known_without,
    morphology_figures,
    photometry_figures,
    reconstruction_figures,
)
from jaisp.evaluate.withheld_position import position_figures
from jaisp.evaluate.withheld_registration import registration_figure

NO_SECOND_FIELD = "no second field: one is made of simulated surveys alone"
TOO_FEW_INJECTED = "too few injected sources to fit a readout on"
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
    groups = {"retrieval": rows, "collapse": spread}
    plots = [*retrieval_plots(rows, pairs), *collapse_plots(spectra)]
    if "withheld" in bench.further:
        figures = retrieval_figures(store, bench.train, sky, means, bench.every, settings)
        groups["withheld"] = withheld(figures, bench.bands, settings, bench.outcomes)
        plots += withheld_plots("retrieval", groups["withheld"])
    return found(groups, plots, "no survey has a band to spare")


def measure_bands(bench: Bench) -> Found:
    """Retrieval between single bands."""
    if bench.why_not is not None:
        return skipped(("retrieval",), bench.why_not)
    known = (bench.store, bench.test, bench.train, bench.catalogues, bench.every, bench.settings)
    rows = band_retrieval(*known, bench.outcomes)
    return found({"retrieval": rows}, band_plots(rows), _no_source(bench))


def measure_position(bench: Bench) -> Found:
    """Positions of injected sources on empty sky, also without a survey or a band, and on the empty
    sky of another field."""
    names = ("position", "transfer")
    home = bench.known_sky("empty")
    if bench.why_not is not None or home is None:
        return skipped(names, bench.why_not or bench.why_no_sky)
    settings, encoders, outcomes = bench.settings, bench.probed, bench.outcomes
    seen = seen_of(home, encoders, settings)
    at_home = asked_of(home, seen, settings)
    fitted = fit_readouts(at_home, settings)
    rows = position_rows(at_home, fitted, settings, outcomes)
    groups, plots = {"position": rows}, position_plots(rows)
    if "withheld" in bench.further:
        figures = position_figures(home, seen, encoders, fitted, settings)
        groups["withheld"] = withheld(figures, bench.bands, settings, outcomes)
        plots += withheld_plots("position", groups["withheld"])
    others = {}
    if "transfer" in bench.further:
        groups["transfer"], others = [], {"transfer": NO_SECOND_FIELD}
        second = bench.known_sky("second_empty")
        if second is not None:
            asked = asked_of(second, seen_of(second, encoders, settings), settings)
            groups["transfer"] = position_transfer(fitted, at_home, asked, settings)
            plots += transfer_plots(groups["transfer"])
            others = {}
    return found(groups, plots, TOO_FEW_INJECTED, others)


def measure_crowded(bench: Bench) -> Found:
    """Positions of sources that were injected among the field's own."""
    sky = bench.known_sky("crowded")
    if bench.why_not is not None or sky is None:
        return skipped(("position",), bench.why_not or bench.why_no_sky)
    rows = position(sky, bench.with_blank, bench.settings, bench.outcomes)
    return found({"position": rows}, position_plots(rows), TOO_FEW_INJECTED)


def measure_registration(bench: Bench) -> Found:
    """Known shifts of one survey, recovered, then without a band."""
    names, sky = ("registration",), bench.known_sky("displaced")
    if bench.why_not is not None or sky is None:
        return skipped(names, bench.why_not or bench.why_no_sky)
    rows, losses = [], []
    for pair in registered(bench.store, sky, bench.with_blank, bench.settings):
        rows += pair.rows
        figure = registration_figure(pair, sky.store, bench.seeing, bench.settings)
        losses += withheld([figure], bench.bands, bench.settings, bench.outcomes)
    plots = [*registration_plots(rows), *withheld_plots("registration", losses)]
    groups = {"registration": rows, "withheld": losses}
    return found(groups, plots, "too few sources in both surveys to fit a readout on")


def measure_deblending(bench: Bench) -> Found:
    """One source or two, then without a band or a survey."""
    names, sky = ("deblending",), bench.known_sky("pairs")
    if bench.why_not is not None or sky is None:
        return skipped(names, bench.why_not or bench.why_no_sky)
    settings = bench.settings
    seen = pairs_seen(sky, bench.with_blank, settings)
    blends = blends_of(sky, seen)
    fitted = fit_scorers(blends, settings)
    rows = deblending_rows(sky, blends, fitted, settings)
    figure = deblending_figure(sky, seen, fitted, bench.seeing, settings)
    losses = withheld([figure], bench.bands, settings, bench.outcomes)
    plots = [*deblending_plots(rows), *withheld_plots("deblending", losses)]
    groups = {"deblending": rows, "withheld": losses}
    return found(groups, plots, "too few injected pairs to fit a probe on")


def measure_truth(bench: Bench) -> Found:
    """Fluxes, shapes and images of sources with known truth, or with sep's apertures for it; then
    without a band or a survey, and fluxes on another field."""
    names = ("photometry", "morphology", "reconstruction")
    if bench.why_not is not None or bench.results is None:
        return skipped(names, bench.why_not or "measured within a run alone")
    settings = bench.settings
    known = known_sky(bench.store, settings, bench.results / "simulated" / "truth.ecsv")
    if known is None:
        return skipped(names, f"no source above S/N {settings.snr_min:g}")
    second = bench.known_sky("second") if "transfer" in bench.further else None
    truth = bench.results / "injected" / "second" / "simulated" / "truth.ecsv"
    there = None if second is None else known_sky(second.store, settings, truth)
    joined = known if there is None else join_skies(known, there)
    everything = features_of(joined, bench.probed, settings)
    known, seen = at_home(joined, everything)
    targets = list(photometry_targets(known))
    fluxes = photometry_regressions(known, seen, targets, settings)
    shapes = morphology_regressions(known, seen, settings)
    groups = {
        "photometry": photometry_rows(known, targets, fluxes, settings, bench.outcomes),
        "morphology": morphology_rows(known, shapes, settings),
    }
    plots = [*photometry_plots(groups["photometry"]), *morphology_plots(groups["morphology"])]
    decoders = []
    if "reconstruction" in bench.further:
        decoders = fit_decoders(known, seen, settings)
        groups["reconstruction"] = reconstruction_rows(known, seen, decoders, settings)
        plots += reconstruction_plots(groups["reconstruction"])
    if "withheld" in bench.further:
        groups["withheld"] = []
        less = known_without(known, seen, bench.seeing, settings)
        figures = {
            "photometry": photometry_figures(less, targets, fluxes),
            "morphology": morphology_figures(less, shapes),
            "reconstruction": reconstruction_figures(less, decoders),
        }
        for name, own in figures.items():
            losses = withheld(own, bench.bands, settings, bench.outcomes)
            groups["withheld"] += losses
            plots += withheld_plots(name, losses)
    others = {} if known.truth == SIMULATED else {"morphology": NO_SHAPES}
    if "transfer" in bench.further:
        groups["transfer"] = []
        if there is not None:
            away = photometry(*away_from_home(joined, everything), settings)
            both = groups["photometry"], away
            groups["transfer"] = photometry_transfer(*both, ("survey", "target"))
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
    "alignment": measure_alignment,
    "truth": measure_truth,
    "position": measure_position,
    "crowded": measure_crowded,
    "registration": measure_registration,
    "deblending": measure_deblending,
}
