"""Readouts of how far one survey lies from another, off the tokens of both, source by source.

Fitted on training sky, and corrected on its parts that they were not fitted on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.displaced import AWAY, HOME, Encoded, Patches, Sources
from jaisp.evaluate.displacement import (
    BOTH_PRODUCTS,
    OWN_PEAKS,
    PRODUCTS,
    Kind,
    Predict,
    fit_displacement,
    kinds_of,
)
from jaisp.evaluate.folds import folds
from jaisp.evaluate.motion import (
    Motion,
    Moves,
    Trust,
    learn_stretch,
    learn_trust,
    mean_motion,
    solve,
    unstretched,
)
from jaisp.evaluate.readout import LINEAR, PEAK_DIMENSIONS
from jaisp.evaluate.scatter import scatter

PARTS = 3  # of the training sky: each is predicted by readouts fitted on the others
FEWEST_PATCHES, FEWEST_SOURCES = 6, 60  # of training sky


@dataclass(frozen=True)
class Sighting:
    """Sources of the patches in two surveys, one of them displaced, each looked at a few times.

    number: of the source. token: row and column of the one in the middle of each look. away, own,
    here: by encoder, 3 × 3 tokens of the displaced survey, of the
    reference survey when it is itself displaced, and of the reference survey at home. The survey's
    mean token is subtracted from each.
    """

    survey: str
    target: str
    number: Int[np.ndarray, " look"]
    patch: Int[np.ndarray, " look"]
    token: Int[np.ndarray, "look 2"]
    place: Float[np.ndarray, "look 2"]
    snr: Float[np.ndarray, " look"]
    away: dict[str, Float32[np.ndarray, "look feature"]]
    own: dict[str, Float32[np.ndarray, "look feature"]]
    here: dict[str, Float32[np.ndarray, "look feature"]]

    def part(self, chosen: Bool[np.ndarray, " look"]) -> "Sighting":
        """Some of the looks."""
        tokens: dict[str, Any] = {
            side: {name: values[chosen] for name, values in getattr(self, side).items()}
            for side in ("away", "own", "here")
        }
        columns = ("number", "patch", "token", "place", "snr")
        return replace(self, **{name: getattr(self, name)[chosen] for name in columns}, **tokens)

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
        token=sources.token[kept],
        place=sources.place[kept],
        snr=(snr[:, kept] ** -2).sum(axis=0) ** -0.5,
        away=away,
        own=own,
        here=here,
    )


@dataclass(frozen=True)
class Reader:
    """A readout of how patches have moved.

    kind: its form. encoder: whose tokens it reads. fits: one or more, each with what it makes of
    shifts as a whole, of patches whose shifts it was not told.
    trust: what its answers for sources are worth. usual: motions of training sky.
    """

    kind: Kind
    encoder: str
    fits: list[tuple[Predict, Float[np.ndarray, "2 2"]]]
    trust: Trust
    usual: Motion

    def motion(self, pair: Sighting, count: int) -> Motion:
        """The motion of each of `count` patches: the mean of what the fits say."""
        away, here = pair.away[self.encoder], pair.here[self.encoder]
        answers = []
        for predict, stretch in self.fits:
            moves, _ = pair.moves(predict(away, here), np.ones(len(away), bool))
            answers.append(unstretched(solve(moves, self.trust, count, self.usual), stretch))
        return mean_motion(answers)


def fit_readers(patches: Patches, pair: Sighting, settings: EvaluateConfig) -> dict[str, Reader]:
    """Readouts of the model's tokens and of every control's; none on too little training sky."""
    train = patches.is_train[pair.patch]
    enough = len(np.unique(pair.number[train])) >= FEWEST_SOURCES
    if not enough or len(np.unique(pair.patch[train])) < FEWEST_PATCHES:
        return {}
    truth = patches.motion
    # The shuffled control is taught the motions of other patches, and chooses its form by them.
    order = np.arange(len(patches))
    members = np.flatnonzero(patches.is_train)
    order[members] = np.random.default_rng(settings.seed).permutation(members)
    shuffled = {survey: motion.part(order) for survey, motion in truth.items()}
    kinds = _kinds(pair)
    model = _fit(patches, pair, "model", truth, kinds, settings)
    chosen = (model.kind,)
    readers = {
        "model": model,
        "shuffled": _fit(patches, pair, "model", shuffled, kinds, settings),
    }
    for control, tried in (("random", kinds), ("blank", chosen)):
        if control in pair.away:
            readers[control] = _fit(patches, pair, control, truth, tried, settings)
    return readers


def _kinds(pair: Sighting) -> tuple[Kind, ...]:
    return kinds_of(pair.away["model"], pair.here["model"])


def _fit(
    patches: Patches,
    pair: Sighting,
    encoder: str,
    taught: Mapping[str, Motion],
    kinds: tuple[Kind, ...],
    settings: EvaluateConfig,
) -> Reader:
    """The form of readout that finds best how training sky's patches were shifted.

    As many readouts are fitted as there are parts of the training sky, each on the other parts;
    what each is worth is seen on its own part. One that is fitted on the reference survey alone is
    not told how the displaced survey's patches were shifted: it learns from all of them.
    """
    train = patches.is_train[pair.patch]
    part = np.full(len(train), -1)
    part[train] = folds(int(train.sum()), PARTS, settings.seed, pair.patch[train])
    parts = [part == number for number in np.unique(part[train])]
    motion, usual = taught[pair.survey], taught[pair.survey].part(patches.is_train)
    truth = motion.at(pair.patch, pair.place)
    readers: list[tuple[float, Reader]] = []
    for kind in kinds:
        unseen = [train] if kind == OWN_PEAKS else parts
        found, moved = _answers(kind, pair, encoder, taught, train, unseen, settings.seed)
        moves, first = pair.moves(moved, train)
        trust = learn_trust(moves, truth[first])
        solved = solve(moves, trust, len(patches), usual)
        fits, errors = [], []
        for predict, out in zip(found, unseen, strict=True):
            own_patches = np.unique(pair.patch[out])
            there, right = solved.part(own_patches), motion.part(own_patches)
            fits.append((predict, learn_stretch(there, right)))
            errors.append(unstretched(there, fits[-1][1]).shift - right.shift)
        error = scatter(np.concatenate(errors).ravel())
        readers.append((error, Reader(kind, encoder, fits, trust, usual)))
    return min(readers, key=lambda own: own[0])[1]


def _answers(
    kind: Kind,
    pair: Sighting,
    encoder: str,
    taught: Mapping[str, Motion],
    train: Bool[np.ndarray, " look"],
    unseen: Sequence[Bool[np.ndarray, " look"]],
    seed: int,
) -> tuple[list[Predict], Float[np.ndarray, "look 2"]]:
    """A fit for each part of the training sky, on the rest of it, and what each says of its part;
    one that is fitted on the reference survey alone may see all."""
    away, own, here = (tokens[encoder] for tokens in (pair.away, pair.own, pair.here))
    truth, of_own = (taught[s].at(pair.patch, pair.place) for s in (pair.survey, pair.target))
    found: list[Predict] = []
    strengths = None  # what suits the first fit suits those of the other parts
    moved = np.zeros_like(truth)
    for out in unseen:
        fit = train if kind == OWN_PEAKS else train & ~out
        across = away[fit], here[fit], truth[fit], pair.patch[fit]
        alone = own[fit], here[fit], of_own[fit], pair.patch[fit]
        seen = alone if kind == OWN_PEAKS else across
        if kind == BOTH_PRODUCTS:
            both = [np.concatenate(each) for each in zip(across, alone, strict=True)]
            seen = both[0], both[1], both[2], both[3]
        predict, strengths = fit_displacement(kind, *seen, seed, strengths=strengths)
        found.append(predict)
        moved[out] = predict(away[out], here[out])
    return found, moved


def read_shared(
    patches: Patches, pair: Sighting, offset: Float[np.ndarray, " 2"], settings: EvaluateConfig
) -> Motion | None:
    """What a readout says that has only seen the reference survey, displaced and at home; None
    where tokens of the two surveys can't be subtracted.

    offset: between the two surveys on training sky, as catalogues have it.

    Equal tokens mean no displacement, so that whoever puts the displaced survey's tokens in another
    place is found out.
    """
    if PRODUCTS not in _kinds(pair):
        return None
    truth, taught = (
        patches.motion[survey].at(pair.patch, pair.place) for survey in (pair.survey, pair.target)
    )
    train = patches.is_train[pair.patch]
    away, own, here = (tokens["model"] for tokens in (pair.away, pair.own, pair.here))
    seen = own[train], here[train], taught[train], pair.patch[train]
    told: list[tuple[float, Motion]] = []
    for kind in (LINEAR, PEAK_DIMENSIONS, PRODUCTS):
        predict, _ = fit_displacement(kind, *seen, settings.seed, constant=False)
        moved = predict(away, here)
        moves, first = pair.moves(moved, train)
        trust = learn_trust(moves, truth[first])
        trust = trust.with_offset(offset * np.median(trust.slope))
        usual = patches.motion[pair.survey].part(patches.is_train)
        moves, _ = pair.moves(moved, np.ones(len(moved), bool))
        found = solve(moves, trust, len(patches), usual)
        stretch = learn_stretch(found.part(patches.is_train), usual)
        told.append((trust.information(pair.snr[train]), unstretched(found, stretch)))
    return max(told, key=lambda own: own[0])[1]
