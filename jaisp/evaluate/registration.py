"""How well do tokens tell how one survey lies on another? Against shifts that were put in.

One survey's patches were displaced and turned by known amounts (`jaisp.inject`), each patch by its
own. A readout of both surveys' tokens, fitted on training sky, tells of each source of a test patch
how far it has moved; the patch's answer is their weighted mean, solved for shift and turn.
docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.alignment import reference_bands
from jaisp.evaluate.bootstrap import interval, sky_units
from jaisp.evaluate.displaced import (
    AWAY,
    HOME,
    Encoded,
    Patches,
    Sources,
    chosen_sources,
    displaced_catalogues,
    displaced_patches,
    encode_patches,
    home_catalogues,
)
from jaisp.evaluate.displacement import (
    BOTH_PRODUCTS,
    LINEAR,
    PRODUCTS,
    Kind,
    fit_displacement,
    kinds_of,
)
from jaisp.evaluate.folds import folds
from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.matching import match_catalogues, phase_shift
from jaisp.evaluate.motion import Motion, Moves, Trust, corrected, learn_trust, mean_motion, solve
from jaisp.evaluate.position import CLAIM, UNDERPOWERED
from jaisp.evaluate.scatter import scatter
from jaisp.evaluate.views import Encoder
from jaisp.progress import track
from jaisp.store.reader import Store

SHIFTS_MAS = (0.0, 50.0, 100.0, 200.0, 500.0)
PARTS = 3  # of the training sky: each is predicted by readouts fitted on the others
FEWEST_PATCHES, FEWEST_SOURCES = 6, 60  # of training sky
MAS_PER_ARCSEC = 60 / 1000  # a turn of 1 mas per arcsec, in arcsec per arcmin


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
    patches = displaced_patches(home, displaced, settings.patches)
    catalogues = home_catalogues(home, patches)
    moved = displaced_catalogues(displaced.store, patches)
    sources = chosen_sources(home, catalogues, settings.snr_min)
    seen = encode_patches(home, displaced.store, patches, sources, encoders)
    bands = {survey: home.bands(survey) for survey in home.surveys}
    best = reference_bands(bands, catalogues, settings.snr_min)
    rows: list[dict[str, Any]] = []
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
        found = registration_rows(patches, pair, matched, phase, settings)
        rows += [{**row, "field": displaced.name} for row in found]
    return rows


@dataclass(frozen=True)
class Sighting:
    """Sources of the patches in two surveys, one of them displaced, each looked at a few times.

    number: of the source. away, own, here: by encoder, 3 × 3 tokens of the displaced survey, of the
    reference survey when it is itself displaced, and of the reference survey at home. The survey's
    mean token is subtracted from each.
    """

    survey: str
    target: str
    number: Int[np.ndarray, " look"]
    patch: Int[np.ndarray, " look"]
    place: Float[np.ndarray, "look 2"]
    snr: Float[np.ndarray, " look"]
    away: dict[str, Float32[np.ndarray, "look feature"]]
    own: dict[str, Float32[np.ndarray, "look feature"]]
    here: dict[str, Float32[np.ndarray, "look feature"]]

    def moves(
        self, moved: Float[np.ndarray, "look 2"], chosen: Bool[np.ndarray, " look"]
    ) -> tuple[Moves, Int[np.ndarray, " source"]]:
        """What a readout says of the sources of some looks, the mean over a source's looks; and
        the first look of each source."""
        looks = np.flatnonzero(chosen)
        _, first, source = np.unique(self.number[looks], return_index=True, return_inverse=True)
        count = np.bincount(source)
        mean = np.stack([np.bincount(source, axis) / count for axis in moved[looks].T], axis=1)
        first = looks[first]
        return Moves(self.patch[first], self.place[first], mean, self.snr[first]), first


def sighting(
    patches: Patches, sources: Sources, seen: Encoded, pair: tuple[str, str], snr_min: float
) -> Sighting:
    """The sources above `snr_min` in both of a pair of surveys that have all their tokens."""
    survey, target = pair
    snr = np.stack([sources.snr[survey], sources.snr[target]])
    kept = (snr > snr_min).all(axis=0)
    sides = ((survey, AWAY), (target, AWAY), (target, HOME))
    if not all(side in seen.around for side in sides):
        kept &= False
    for side in sides:
        for values in seen.around.get(side, {}).values():
            kept &= np.isfinite(values).all(axis=1)
    away, own, here = (
        {
            name: values[kept] - seen.mean[side[0]][name]
            for name, values in seen.around.get(side, {}).items()
        }
        for side in sides
    )
    return Sighting(
        survey=survey,
        target=target,
        number=sources.number[kept],
        patch=sources.patch[kept],
        place=sources.place[kept],
        snr=(snr[:, kept] ** -2).sum(axis=0) ** -0.5,
        away=away,
        own=own,
        here=here,
    )


def registration_rows(
    patches: Patches,
    pair: Sighting,
    matched: Moves,
    phase: Float[np.ndarray, "patch 2"],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Rows of one displaced survey and one reference survey, one a size of the shift.

    matched: what catalogues say of sources, mas; phase: what phase correlation says of patches,
    NaN where nothing.
    """
    truth = patches.motion[pair.survey]
    train = patches.is_train[pair.patch]
    enough = len(np.unique(pair.number[train])) >= FEWEST_SOURCES
    if not enough or len(np.unique(pair.patch[train])) < FEWEST_PATCHES:
        return []
    none = Motion(0 * truth.shift, 0 * truth.turn)
    catalogue, offset = none, np.zeros(2)
    known = patches.is_train[matched.patch]
    if np.count_nonzero(known) >= FEWEST_SOURCES:
        moved = truth.at(matched.patch, matched.place)
        trust = learn_trust(matched.part(known), moved[known], slope=1.0)
        offset = trust.offset
        catalogue = solve(matched, trust, len(patches), truth.part(patches.is_train))
    answers, chosen = _answers(patches, pair, offset, settings)
    answers["catalogue"] = catalogue
    answers["phase_correlation"] = _phase_answer(phase, truth, patches.is_train)
    answers["constant"] = none
    return list(_rows(patches, pair, answers, chosen, settings))


def _answers(
    patches: Patches, pair: Sighting, offset: Float[np.ndarray, " 2"], settings: EvaluateConfig
) -> tuple[dict[str, Motion], Kind]:
    """Motions that the model and every control read off tokens, and the model's form of readout.

    offset: between the two surveys on training sky, as catalogues have it.
    """
    truth = patches.motion
    # The shuffled control is taught the motions of other patches.
    order = np.arange(len(patches))
    members = np.flatnonzero(patches.is_train)
    order[members] = np.random.default_rng(settings.seed).permutation(members)
    shuffled = {survey: motion.part(order) for survey, motion in truth.items()}
    kinds = kinds_of(pair.away["model"], pair.here["model"])
    answers, chosen = {}, LINEAR
    answers["model"], chosen = _read(patches, pair, "model", truth, kinds, settings)
    answers["shuffled"], _ = _read(patches, pair, "model", shuffled, (chosen,), settings)
    for control, tried in (("random", kinds), ("blank", (chosen,))):
        if control in pair.away:
            answers[control], _ = _read(patches, pair, control, truth, tried, settings)
    if PRODUCTS in kinds:
        answers["shared"] = _read_shared(patches, pair, offset, settings)
    return answers, chosen


def _read(
    patches: Patches,
    pair: Sighting,
    encoder: str,
    taught: Mapping[str, Motion],
    kinds: tuple[Kind, ...],
    settings: EvaluateConfig,
) -> tuple[Motion, Kind]:
    """The motion of every patch, by the form of readout that tells most on training sky.

    As many readouts are fitted as there are parts of the training sky, each on the other parts;
    what each is worth is seen on its own part, and their mean is the answer.
    """
    away, own, here = (tokens[encoder] for tokens in (pair.away, pair.own, pair.here))
    truth, of_own = (taught[s].at(pair.patch, pair.place) for s in (pair.survey, pair.target))
    train = patches.is_train[pair.patch]
    part = np.full(len(train), -1)
    part[train] = folds(int(train.sum()), PARTS, settings.seed, pair.patch[train])
    parts = [part == number for number in np.unique(part[train])]
    told: dict[Kind, tuple[list[np.ndarray], Trust]] = {}
    for kind in kinds:
        found = []
        for out in parts:
            fit = train & ~out
            seen = away[fit], here[fit], truth[fit], pair.patch[fit]
            if kind == BOTH_PRODUCTS:
                seen = (
                    np.concatenate([away[fit], own[fit]]),
                    np.concatenate([here[fit], here[fit]]),
                    np.concatenate([truth[fit], of_own[fit]]),
                    np.tile(pair.patch[fit], 2),
                )
            found.append(fit_displacement(kind, *seen, settings.seed)(away, here))
        moved = np.zeros_like(truth)
        for out, one in zip(parts, found, strict=True):
            moved[out] = one[out]
        moves, first = pair.moves(moved, train)
        told[kind] = found, learn_trust(moves, truth[first])
    best = max(kinds, key=lambda kind: told[kind][1].information(pair.snr[train]))
    found, trust = told[best]
    answers = []
    for out, moved in zip(parts, found, strict=True):
        unseen = np.isin(np.arange(len(patches)), pair.patch[out])
        answers.append(_solved(patches, pair, moved, trust, taught[pair.survey], unseen))
    return mean_motion(answers), best


def _solved(
    patches: Patches,
    pair: Sighting,
    moved: Float[np.ndarray, "look 2"],
    trust: Trust,
    taught: Motion,
    unseen: Bool[np.ndarray, " patch"],
) -> Motion:
    """The motion of every patch; unseen: those of training sky that were not fitted on."""
    moves, _ = pair.moves(moved, np.ones(len(moved), bool))
    found = solve(moves, trust, len(patches), taught.part(patches.is_train))
    return corrected(found, taught, unseen)


def _read_shared(
    patches: Patches, pair: Sighting, offset: Float[np.ndarray, " 2"], settings: EvaluateConfig
) -> Motion:
    """The same by a readout that has only seen the reference survey, displaced and at home.

    Equal tokens mean no displacement, so that whoever puts the displaced survey's tokens in another
    place is found out.
    """
    truth, taught = (
        patches.motion[survey].at(pair.patch, pair.place) for survey in (pair.survey, pair.target)
    )
    train = patches.is_train[pair.patch]
    away, own, here = (tokens["model"] for tokens in (pair.away, pair.own, pair.here))
    seen = own[train], here[train], taught[train], pair.patch[train]
    told: list[tuple[float, Motion]] = []
    for kind in (LINEAR, PRODUCTS):
        moved = fit_displacement(kind, *seen, settings.seed, constant=False)(away, here)
        moves, first = pair.moves(moved, train)
        trust = learn_trust(moves, truth[first])
        trust = trust.with_offset(offset * np.median(trust.slope))
        motion = patches.motion[pair.survey]
        found = _solved(patches, pair, moved, trust, motion, patches.is_train)
        told.append((trust.information(pair.snr[train]), found))
    return max(told, key=lambda own: own[0])[1]


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
        row["error_mas_low"], row["error_mas_high"] = interval(
            partial(_scatter_of, off["model"]), units, settings.resamples, settings.seed
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


def _scatter_of(errors: Float[np.ndarray, "patch 2"], drawn: Int[np.ndarray, " drawn"]) -> float:
    return scatter(errors[drawn].ravel())


def _bias(
    errors: Float[np.ndarray, "patch 2"],
    shifts: Float[np.ndarray, "patch 2"],
    size: Float[np.ndarray, " patch"],
) -> float | None:
    """Mean error along the shift, mas: below 0 where answers fall short of it."""
    if not size.any():
        return None
    return float(np.mean((errors * shifts).sum(axis=1) / np.maximum(size, 1e-9)))
