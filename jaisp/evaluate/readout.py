"""Reading a position off tokens: a linear map for each S/N, of the source's own token or of those
around it, too; or one small network for all S/N.

Tokens around it tell more, and many dimensions times nine of them are more numbers than there are
sources to fit on. Training sky decides.
"""

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Float32, Shaped
from sklearn.decomposition import PCA

from jaisp.evaluate.folds import folds
from jaisp.evaluate.probe import MOST_BENT, fit_probe
from jaisp.evaluate.scatter import scatter

Form = Literal["one token", "linear", "mlp"]
ONE_TOKEN: Final = "one token"
LINEAR: Final = "linear"
MLP: Final = "mlp"
PARTS = 5  # of the training sky, one of which decides between forms

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Readout:
    """Fitted on sources of training sky.

    Parameters
    ----------
    features: around each source. offsets: what to read, in any unit. snr: nominal, a few values.
    units: the piece of sky of each source: one decides as a whole.
    kinds: which forms are tried; the best one is chosen at each S/N on a part of the training
        sky that none was fitted on, and fitted again on all of it.
    own: which of the features are the source's own token's; all that `one token` is given.

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
    ) -> None:
        self._own = own
        self.chosen: dict[float, Form] = {float(level): kinds[0] for level in np.unique(snr)}
        # Components say nothing of the offsets: those of all sources choose no form.
        self._reduce = components(features, seed) if MLP in kinds else None
        if len(kinds) > 1:
            out = folds(len(features), PARTS, seed, units) == 0
            part = features[~out], offsets[~out], snr[~out], units[~out], seed
            errors = {
                kind: self._fit(kind, *part)(features[out], snr[out]) - offsets[out]
                for kind in kinds
            }
            for level in self.chosen:
                same = snr[out] == level
                if same.any():
                    scatters = {kind: scatter(e[same].ravel()) for kind, e in errors.items()}
                    self.chosen[level] = min(kinds, key=scatters.__getitem__)
        whole = features, offsets, snr, units, seed
        self._fitted = {kind: self._fit(kind, *whole) for kind in sorted(set(self.chosen.values()))}

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

    def _fit(
        self,
        kind: Form,
        features: np.ndarray,
        offsets: np.ndarray,
        snr: np.ndarray,
        units: np.ndarray,
        seed: int,
    ) -> Predict:
        if kind == ONE_TOKEN:
            predict = _linear(features[:, self._own], offsets, snr, units, seed)
            return lambda features, snr: predict(features[:, self._own], snr)
        if kind == LINEAR or self._reduce is None:
            return _linear(features, offsets, snr, units, seed)
        # One network for all S/N.
        reduce = self._reduce
        probe = fit_probe(MLP, reduce.transform(features), offsets, seed, units, together=True)
        return lambda features, snr: probe.predict(reduce.transform(features))


def _linear(
    features: np.ndarray, offsets: np.ndarray, snr: np.ndarray, units: np.ndarray, seed: int
) -> Predict:
    """A ridge regression a S/N: how much a token can be trusted depends on it."""
    probes = {
        float(level): fit_probe(
            LINEAR, features[snr == level], offsets[snr == level], seed, units[snr == level]
        )
        for level in np.unique(snr)
    }

    def predict(features: np.ndarray, snr: np.ndarray) -> np.ndarray:
        found = np.empty((len(features), 2))
        for level, probe in probes.items():
            own = snr == level
            if own.any():
                found[own] = probe.predict(features[own])
        return found

    return predict


def components(features: np.ndarray, seed: int) -> PCA:
    """The features' leading principal components (Halko et al. 2011)."""
    count = min(MOST_BENT, *features.shape)
    return PCA(count, svd_solver="randomized", iterated_power=3, random_state=seed).fit(features)
