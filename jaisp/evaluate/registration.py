"""How well do tokens tell how one survey lies on another? Against shifts that were put in.

One survey's patches were displaced and turned by known amounts (`jaisp.inject`), each patch by its
own. A readout of both surveys' tokens, fitted on training sky, tells of each source of a test patch
how far it has moved; the patch's answer is their weighted mean, solved for shift and turn.
docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.alignment import reference_bands
from jaisp.evaluate.bootstrap import sky_units
from jaisp.evaluate.displaced import (
    Patches,
    chosen_sources,
    displaced_catalogues,
    displaced_patches,
    encode_patches,
    home_catalogues,
)
from jaisp.evaluate.displacement import Kind
from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.matching import match_catalogues, phase_shift
from jaisp.evaluate.motion import Motion, Moves, learn_trust, solve
from jaisp.evaluate.position import CLAIM, UNDERPOWERED
from jaisp.evaluate.scatter import scatter
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.sighting import (
    FEWEST_SOURCES,
    Reader,
    Sighting,
    fit_readers,
    read_shared,
    sighting,
)
from jaisp.evaluate.statistic import drawn_interval
from jaisp.progress import track
from jaisp.store.reader import Store

SHIFTS_MAS = (0.0, 50.0, 100.0, 200.0, 500.0)
MAS_PER_ARCSEC = 60 / 1000  # a turn of 1 mas per arcsec, in arcsec per arcmin


@dataclass(frozen=True)
class Registered:
    """One survey displaced against another at home: what was read, and its rows.

    mean: by encoder, what was subtracted from the displaced survey's tokens.
    """

    patches: Patches
    pair: Sighting
    mean: dict[str, Float32[np.ndarray, " feature"]]
    readers: dict[str, Reader]
    rows: list[dict[str, Any]]


def registration(
    home: Store,
    displaced: InjectedSky,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Rows of the group `registration`: each survey displaced, against every other one at home.

    encoders: `model` and the controls `random` and `blank`. displaced: a row a patch of the same
    sky as `home`. Surveys that share too little training sky to fit a readout on have no row.
    """
    return [row for pair in registered(home, displaced, encoders, settings) for row in pair.rows]


def registered(
    home: Store,
    displaced: InjectedSky,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> Iterator[Registered]:
    """See `registration`: pair by pair of surveys, those without a row left out."""
    patches = displaced_patches(home, displaced, settings)
    catalogues = home_catalogues(home, patches)
    moved = displaced_catalogues(displaced.store, patches)
    sources = chosen_sources(home, catalogues, settings.snr_min)
    seen = encode_patches(home, displaced.store, patches, sources, encoders)
    bands = {survey: home.bands(survey) for survey in home.surveys}
    best = reference_bands(bands, catalogues, settings.snr_min)
    for survey, target in permutations(home.surveys, 2):
        pair = sighting(patches, sources, seen, (survey, target), settings.snr_min)
        shifted, reference = ((s, bands[s].index(best[s])) for s in (survey, target))
        matched = match_catalogues(
            catalogues, moved, shifted, reference, home.patch_arcsec, settings.snr_min
        )
        phase = np.full((len(patches), 2), np.nan)
        for number in track(list(np.unique(pair.patch)), f"phase correlation {survey} {target}"):
            there, here = (
                displaced.store[int(patches.away[number])],
                home[int(patches.home[number])],
            )
            phase[number] = phase_shift(there[survey], here[target], best)
        readers = fit_readers(patches, pair, settings)
        if readers:
            rows = registration_rows(patches, pair, readers, matched, phase, settings)
            rows = [{**row, "field": displaced.name} for row in rows]
            yield Registered(patches, pair, seen.mean[survey], readers, rows)


def registration_rows(
    patches: Patches,
    pair: Sighting,
    readers: Mapping[str, Reader],
    matched: Moves,
    phase: Float[np.ndarray, "patch 2"],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Rows of one displaced survey and one reference survey, one a size of the shift.

    readers: from `fit_readers`. matched: what catalogues say of sources, mas; phase: what phase
    correlation says of patches, NaN where nothing.
    """
    truth = patches.motion[pair.survey]
    none = Motion(0 * truth.shift, 0 * truth.turn)
    catalogue, offset = none, np.zeros(2)
    known = patches.is_train[matched.patch]
    if np.count_nonzero(known) >= FEWEST_SOURCES:
        moved = truth.at(matched.patch, matched.place)
        trust = learn_trust(matched.part(known), moved[known], slope=1.0)
        # Between the two surveys on training sky.
        offset = trust.offset
        catalogue = solve(matched, trust, len(patches), truth.part(patches.is_train))
    answers = {name: reader.motion(pair, len(patches)) for name, reader in readers.items()}
    shared = read_shared(patches, pair, offset, settings)
    answers |= {} if shared is None else {"shared": shared}
    answers["catalogue"] = catalogue
    answers["phase_correlation"] = _phase_answer(phase, truth, patches.is_train)
    answers["constant"] = none
    return list(_rows(patches, pair, answers, readers["model"].kind, settings))


def _phase_answer(
    phase: Float[np.ndarray, "patch 2"], truth: Motion, is_train: Bool[np.ndarray, " patch"]
) -> Motion:
    """Less its median error on training sky; where it says nothing, no answer."""
    known = np.isfinite(phase).all(axis=1)
    learnt = known & is_train
    offset = np.median((phase - truth.shift)[learnt], axis=0) if learnt.any() else np.zeros(2)
    return Motion(np.where(known[:, None], phase - offset, 0), np.zeros(len(phase)))


def _rows(
    patches: Patches,
    pair: Sighting,
    answers: Mapping[str, Motion],
    chosen: Kind,
    settings: EvaluateConfig,
) -> Iterator[dict[str, Any]]:
    truth = patches.motion[pair.survey]
    size = np.hypot(*truth.shift.T)
    nearest = np.abs(size[:, None] - np.array(SHIFTS_MAS)).argmin(axis=1)
    _, first = np.unique(pair.number, return_index=True)
    count = np.bincount(pair.patch[first], minlength=len(patches))
    errors = {name: motion.shift - truth.shift for name, motion in answers.items()}
    turns = {name: motion.turn - truth.turn for name, motion in answers.items()}
    for number, shift in enumerate(SHIFTS_MAS):
        own = np.flatnonzero(patches.is_test & (nearest == number) & (count > 0))
        if not len(own):
            continue
        units, unit = sky_units(own, patches.cells)
        off = {name: values[own] for name, values in errors.items()}
        sources = int(count[own].sum())
        row: dict[str, Any] = {
            "survey": pair.survey,
            "target": pair.target,
            "shift_mas": shift,
            "n": len(own),
            "sources": sources,
            "error_mas": scatter(off["model"].ravel()),
        }
        row["error_mas_low"], row["error_mas_high"] = drawn_interval(
            "scatter", off["model"], units, settings.resamples, settings.seed
        )
        row["bias_mas"] = _bias(off["model"], truth.shift[own], size[own])
        for name in off.keys() - {"model"}:
            row[f"{name}_mas"] = scatter(off[name].ravel())
        for name in ("model", "catalogue", "random", "shuffled", "constant"):
            if name in turns:
                prefix = "" if name == "model" else f"{name}_"
                row[f"{prefix}rotation_error"] = MAS_PER_ARCSEC * scatter(turns[name][own])
        classical = min(row["phase_correlation_mas"], row["catalogue_mas"])
        row |= {
            "probe": chosen,
            "claim": bool(row["constant_mas"] > CLAIM * classical),
            "interval_unit": unit,
            "underpowered": sources < UNDERPOWERED,
        }
        yield row


def _bias(
    errors: Float[np.ndarray, "patch 2"],
    shifts: Float[np.ndarray, "patch 2"],
    size: Float[np.ndarray, " patch"],
) -> float | None:
    """Mean error along the shift, mas: below 0 where answers fall short of it."""
    if not size.any():
        return None
    return float(np.mean((errors * shifts).sum(axis=1) / np.maximum(size, 1e-9)))
