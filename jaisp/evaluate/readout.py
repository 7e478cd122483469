"""Reading a position off tokens: a linear map for each S/N, of the source's own token or of those
around it, too, of the few dimensions in which tokens hold peaks, or of what such maps answer for
each survey; or one small network for all S/N.

Tokens around it tell more, and many dimensions times nine of them are more numbers than there are
sources to fit on. Training sky decides.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from operator import itemgetter
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from sklearn.decomposition import PCA

from jaisp.evaluate.clipped import fit_clipped_once
from jaisp.evaluate.folds import folds
from jaisp.evaluate.injected import kept
from jaisp.evaluate.probe import MOST_BENT, fit_probe
from jaisp.evaluate.scatter import scatter
from jaisp.evaluate.stacked import Regression, Shown, fit_stacked

Form = Literal["peaks", "one token", "linear", "stacked", "mlp"]
PEAK_DIMENSIONS: Final = "peaks"
ONE_TOKEN: Final = "one token"
LINEAR: Final = "linear"
STACKED: Final = "stacked"
MLP: Final = "mlp"
PARTS = 3  # of the training sky: each judges forms that were fitted on the others

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class KnownSources:
    """Sources to fit on, as a `Readout` is given them."""

    features: Float32[np.ndarray, "source feature"]
    offsets: Float[np.ndarray, "source 2"]
    snr: Float[np.ndarray, " source"]
    units: Shaped[np.ndarray, " source"]
    sorts: Int[np.ndarray, " source"]

    def part(self, own: Bool[np.ndarray, " source"]) -> "KnownSources":
        """Some of the sources."""
        return KnownSources(*(getattr(self, field.name)[own] for field in fields(self)))


class Readout:
    """Fitted on sources of training sky.

    Parameters
    ----------
    features: around each source. offsets: what to read, in any unit. snr: nominal, a few values.
    units: the piece of sky of each source: one decides as a whole.
    kinds: which forms are tried; the best one is chosen at each S/N by what they tell of parts of
        the training sky that they were not fitted on, and fitted again on all of it.
    own: which of the features are the source's own token's; all that `one token` is given, and
        `peaks` the last few of these.
    sorts: what sort of answer each source's offset is, from 0 on, where there are several: one sort
        is not to hide what a form errs in another. With linear forms alone.
    surveys: whose features stand side by side, as many of each. `stacked` reads each by itself, all
        of them and the peaks of its own token, and weighs the answers.

    chosen: by S/N, which form it was.
    """

    def __init__(
        self,
        features: Float32[np.ndarray, "source feature"],
        offsets: Float[np.ndarray, "source 2"],
        snr: Float[np.ndarray, " source"],
        units: Shaped[np.ndarray, " source"],
        seed: int,
        kinds: tuple[Form, ...] = (LINEAR, MLP),
        own: slice = slice(None),
        surveys: int = 1,
        sorts: Int[np.ndarray, " source"] | None = None,
    ) -> None:
        self._own, self._surveys, self._seed = own, surveys, seed
        self._regression: Regression = partial(fit_clipped_once, {})
        self.chosen: dict[float, Form] = {float(level): kinds[0] for level in np.unique(snr)}
        # Components say nothing of the offsets: those of all sources choose no form.
        self._reduce = components(features, seed) if MLP in kinds else None
        sorts = np.zeros(len(features), int) if sorts is None else sorts
        whole = KnownSources(features, offsets, snr, units, sorts)
        if len(kinds) > 1:
            errors = {kind: self._unseen(kind, whole) - offsets for kind in kinds}
            for level in self.chosen:
                level_sorts = [(snr == level) & (sorts == sort) for sort in np.unique(sorts)]
                scatters = {
                    kind: np.hypot.reduce([scatter(error[own].ravel()) for own in level_sorts])
                    for kind, error in errors.items()
                }
                self.chosen[level] = min(kinds, key=scatters.__getitem__)
        self._fitted = {kind: self._fit(kind, whole) for kind in sorted(set(self.chosen.values()))}
        del self._regression  # what it keeps is needed no more

    def predict(
        self, features: Float32[np.ndarray, "source feature"], snr: Float[np.ndarray, " source"]
    ) -> Float[np.ndarray, "source 2"]:
        """Offsets of sources whose nominal S/N are among those fitted."""
        found = np.empty((len(features), 2))
        for level, kind in self.chosen.items():
            same = snr == level
            if same.any():
                found[same] = self._fitted[kind](features[same], snr[same])
        return found

    def _unseen(self, kind: Form, known: KnownSources) -> np.ndarray:
        """What a form says of every source, fitted on other parts of the sky."""
        told = np.empty(known.offsets.shape)
        part = folds(len(told), PARTS, self._seed, known.units)
        for out in [part == number for number in np.unique(part)]:
            told[out] = self._fit(kind, known.part(~out))(known.features[out], known.snr[out])
        return told

    def _fit(self, kind: Form, known: KnownSources) -> Predict:
        if kind == MLP and self._reduce is not None:
            return _network(self._reduce, known, self._seed)
        if kind == STACKED:
            parts = self._parts(known.features.shape[1])
            return _each_snr(partial(fit_stacked, parts, self._regression), known, self._seed)
        fit = partial(_fit_linear, self._regression)
        if kind == LINEAR:
            return _each_snr(fit, known, self._seed)
        shown = self._one_token if kind == ONE_TOKEN else self._peaks
        seen = replace(known, features=shown(known.features))
        predict = _each_snr(fit, seen, self._seed)
        return lambda features, snr: predict(shown(features), snr)

    def _parts(self, width: int) -> list[Shown]:
        """What each of the maps that are stacked is shown of so many features."""
        each = width // self._surveys
        blocks = [slice(start, start + each) for start in range(0, width, each)]
        every: list[Shown] = [itemgetter((slice(None), block)) for block in blocks]
        return [*every, *(partial(_of, self._peaks_of_one, part) for part in every)]

    def _one_token(self, features: np.ndarray) -> np.ndarray:
        return features[:, self._own]

    def _peaks_of_one(self, features: np.ndarray) -> np.ndarray:
        return kept(self._one_token(features))

    def _peaks(self, features: np.ndarray) -> np.ndarray:
        by_survey = self._one_token(features).reshape(len(features), self._surveys, -1)
        return kept(by_survey).reshape(len(features), -1)


def _of(shown: Shown, part: Shown, features: np.ndarray) -> np.ndarray:
    return shown(part(features))


def _network(reduce: PCA, known: KnownSources, seed: int) -> Predict:
    """One network for all S/N."""
    shown = reduce.transform(known.features)
    probe = fit_probe(MLP, shown, known.offsets, seed, known.units, together=True)
    return lambda features, snr: probe.predict(reduce.transform(features))


def _fit_linear(regression: Regression, *known: Any) -> Callable[[np.ndarray], np.ndarray]:
    return regression(*known)[0].predict


def _each_snr(
    fit: Callable[..., Callable[[np.ndarray], np.ndarray]], known: KnownSources, seed: int
) -> Predict:
    """A fit a S/N: how much a token can be trusted depends on it."""
    fitted = {}
    for level in np.unique(known.snr):
        own = known.part(known.snr == level)
        fitted[float(level)] = fit(own.features, own.offsets, seed, own.units, own.sorts)

    def predict(features: np.ndarray, snr: np.ndarray) -> np.ndarray:
        found = np.zeros((len(features), 2))  # of a S/N that was not fitted
        for level, answer in fitted.items():
            own = snr == level
            if own.any():
                found[own] = answer(features[own])
        return found

    return predict


def components(features: np.ndarray, seed: int) -> PCA:
    """The features' leading principal components (Halko et al. 2011)."""
    count = min(MOST_BENT, *features.shape)
    return PCA(count, svd_solver="randomized", iterated_power=3, random_state=seed).fit(features)
