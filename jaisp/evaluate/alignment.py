"""How far apart the surveys put the same sky: no encoder involved, so all sky counts.

Two measures: windowed centroids of sources in both bands, and phase correlation of the images.
Offsets are target less query, positive to the east and to the north.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import interval, sky_units
from jaisp.evaluate.mosaic import Block, blocks
from jaisp.evaluate.phase import Band, Images, PhaseCorrelation
from jaisp.evaluate.retrieval import UNDERPOWERED
from jaisp.evaluate.sources import Catalogue, find_sources
from jaisp.progress import track
from jaisp.store.reader import Store

FEWEST = 3
FAINTEST_SNR = 5.0
RESAMPLES = 300


@dataclass(frozen=True)
class Offsets:
    """Of each source with a centroid in both bands: target less query, arcsec east and north; the
    lower of the two S/N; and the patch it lies on."""

    east_north: Float[np.ndarray, "source 2"]
    snr: Float[np.ndarray, " source"]
    patch: Int[np.ndarray, " source"]

    def __len__(self) -> int:
        return len(self.snr)

    def above(self, snr_min: float) -> "Offsets":
        """The sources above an S/N."""
        bright = self.snr > snr_min
        return Offsets(self.east_north[bright], self.snr[bright], self.patch[bright])


def alignment(
    store: Store, settings: EvaluateConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the group `alignment`, and each row's offsets for the plot.

    The sharpest survey comes first. Surveys that share no sky have no row.
    """
    surveys = sorted(store.surveys, key=store.grid_arcsec)
    bands = {survey: store.bands(survey) for survey in surveys}
    squares = [block for block in blocks(store) if len(block.surveys(store))]
    squares = squares[:: -(-len(squares) // settings.alignment_squares) or 1]
    catalogues = [_catalogue(store, block) for block in track(squares, "find sources to align")]
    reference = reference_bands(bands, catalogues, settings.snr_min)
    phases = {pair: PhaseCorrelation() for pair in band_pairs(bands, reference)}
    for block in track(squares, "align"):
        images = Images({survey: block.mosaic(store, survey) for survey in block.surveys(store)})
        for (query, target), phase in phases.items():
            if query[0] in images.mosaics and target[0] in images.mosaics:
                phase.add(images, query, target)
    cells = [str(store.index.cell[n]) for n in range(len(store))]
    rows, plots = [], []
    for (query, target), phase in phases.items():
        if not phase.images:
            continue
        found = [
            _offsets(catalogue, query, target, bands, block, store.patch_arcsec)
            for catalogue, block in zip(catalogues, squares, strict=True)
            if query[0] in catalogue.snr and target[0] in catalogue.snr
        ]
        row, kept = _row(query, target, _joined(found), phase, cells, settings)
        rows.append(row)
        shown = {"query": row["query"], "target": row["target"], "offsets": kept.east_north}
        plots.append(shown)
    return rows, plots


def band_pairs(
    bands: Mapping[str, Sequence[str]], reference: Mapping[str, str]
) -> list[tuple[Band, Band]]:
    """Each survey's reference band with its own other bands, and with every band of each later
    survey."""
    inside = [
        ((survey, reference[survey]), (survey, band))
        for survey, own in bands.items()
        for band in own
        if band != reference[survey]
    ]
    across = [
        ((first, reference[first]), (second, band))
        for first, second in combinations(bands, 2)
        for band in bands[second]
    ]
    return across + inside


def reference_bands(
    bands: Mapping[str, Sequence[str]], catalogues: Sequence[Catalogue], snr_min: float
) -> dict[str, str]:
    """Of each survey, the band with the highest median S/N of its sources."""
    chosen = {}
    for survey, names in bands.items():
        found = [c.band_snr[survey][c.snr[survey] > snr_min] for c in catalogues if survey in c.snr]
        snr = np.concatenate([np.zeros((0, len(names))), *found])
        chosen[survey] = names[int(np.median(snr, axis=0).argmax())] if len(snr) else names[0]
    return chosen


def _catalogue(store: Store, block: Block) -> Catalogue:
    names = block.surveys(store)
    return find_sources(
        {survey: block.mosaic(store, survey) for survey in names},
        {survey: store.noise_correlation(block.cell, survey) for survey in names},
    )


def _offsets(
    catalogue: Catalogue,
    query: Band,
    target: Band,
    bands: Mapping[str, Sequence[str]],
    block: Block,
    patch_arcsec: float,
) -> Offsets:
    (first, first_band), (second, second_band) = query, target
    a, b = bands[first].index(first_band), bands[second].index(second_band)
    west_north = catalogue.band_xy[second][:, b] - catalogue.band_xy[first][:, a]
    snr = np.minimum(catalogue.band_snr[first][:, a], catalogue.band_snr[second][:, b])
    column, row = np.clip(catalogue.xy // patch_arcsec, 0, len(block.numbers) - 1).astype(int).T
    patch = block.numbers[row, column]
    measured = np.isfinite(west_north).all(axis=1) & (patch >= 0)
    return Offsets(west_north[measured] * (-1, 1), snr[measured], patch[measured])


def _joined(parts: Sequence[Offsets]) -> Offsets:
    return Offsets(
        np.concatenate([part.east_north for part in parts]),
        np.concatenate([part.snr for part in parts]),
        np.concatenate([part.patch for part in parts]),
    )


def _row(
    query: Band,
    target: Band,
    offsets: Offsets,
    phase: PhaseCorrelation,
    cells: Sequence[str],
    settings: EvaluateConfig,
) -> tuple[dict[str, Any], Offsets]:
    """The row of two bands, and the offsets that it rests on."""
    snr_min = settings.alignment_snr_min
    if len(offsets.above(snr_min)) < FEWEST:
        snr_min = min(snr_min, FAINTEST_SNR)
    offsets = offsets.above(snr_min)
    units, unit = sky_units(offsets.patch, cells)
    row: dict[str, Any] = {
        "query": ":".join(query),
        "target": ":".join(target),
        "snr_min": snr_min,
        "n": len(offsets),
        "scatter_arcsec": _scatter(offsets.east_north),
    }
    for axis, name in enumerate(("dx_arcsec", "dy_arcsec")):
        row |= _median(name, offsets.east_north[:, axis], units, settings.seed)
    row["phase_dx_arcsec"], row["phase_dy_arcsec"] = phase.shift_arcsec()
    row["correlation"], row["turned_correlation"] = phase.correlation()
    row |= {"squares": phase.images, "interval_unit": unit}
    return row | {"underpowered": len(offsets) < UNDERPOWERED}, offsets


def _median(
    name: str, values: Float[np.ndarray, " source"], units: Int[np.ndarray, " source"], seed: int
) -> dict[str, float | None]:
    low, high = interval(lambda drawn: float(np.median(values[drawn])), units, RESAMPLES, seed)
    median = float(np.median(values)) if len(values) else None
    return {name: median, f"{name}_low": low, f"{name}_high": high}


def _scatter(offsets: Float[np.ndarray, "source 2"]) -> float | None:
    """Median distance from the median over both axes / 0.6745: σ of a Gaussian."""
    if len(offsets) < 2:
        return None
    return float(np.median(np.abs(offsets - np.median(offsets, axis=0))) / 0.6745)
