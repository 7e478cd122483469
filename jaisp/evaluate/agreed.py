"""One survey's readout of positions that another survey's tokens agree with.

A readout that is fitted on one survey's tokens may lean on directions that carry nothing in these,
and much in another's: nothing at home holds them down. Here it is fitted to the first survey's
positions, and to say of the other's tokens of the same training sources what it says of its own. No
position is told of the other's tokens.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Float32, Shaped

from jaisp.evaluate.folds import folds
from jaisp.evaluate.probe import fit_probe
from jaisp.evaluate.readout import LINEAR, ONE_TOKEN, PARTS, Form
from jaisp.evaluate.scatter import scatter

Predict = Callable[[np.ndarray], np.ndarray]


class AgreedReadout:
    """A linear map a S/N, fitted on sources of training sky that both surveys see.

    Parameters
    ----------
    first, second: features of either survey around each source. offsets: what to read, in the first
        one's frame. snr: nominal, a few values. units: the piece of sky of each source.
    own: which of the features are the source's own token's. All of them are tried, and these alone;
        at each S/N a part of the training sky that none was fitted on decides, by how far the
        first survey's tokens err there and how far the second's disagree. forms: decided already.

    chosen: by S/N, which form it was.
    """

    def __init__(
        self,
        first: Float32[np.ndarray, "source feature"],
        second: Float32[np.ndarray, "source feature"],
        offsets: Float[np.ndarray, "source 2"],
        snr: Float[np.ndarray, " source"],
        units: Shaped[np.ndarray, " source"],
        seed: int,
        own: slice,
        forms: Mapping[float, Form] | None = None,
    ) -> None:
        self._columns: dict[Form, slice] = {LINEAR: slice(None), ONE_TOKEN: own}
        self.chosen: dict[float, Form] = dict(forms or {})
        self._fitted: dict[float, Predict] = {}
        for level in np.unique(snr).tolist():
            same = snr == level
            part = first[same], second[same], offsets[same], units[same]
            if forms is None:
                errors = {form: self._error(form, *part, seed) for form in self._columns}
                self.chosen[level] = min(errors, key=errors.__getitem__)
            self._fitted[level] = self._fit(self.chosen[level], *part, seed)

    def predict(
        self, features: Float32[np.ndarray, "source feature"], snr: Float[np.ndarray, " source"]
    ) -> Float[np.ndarray, "source 2"]:
        """Offsets of sources of either survey whose nominal S/N are among those fitted."""
        found = np.empty((len(features), 2))
        for level, form in self.chosen.items():
            same = snr == level
            if same.any():
                found[same] = self._fitted[level](features[same][:, self._columns[form]])
        return found

    def _error(
        self,
        form: Form,
        first: np.ndarray,
        second: np.ndarray,
        offsets: np.ndarray,
        units: np.ndarray,
        seed: int,
    ) -> float:
        """Scatter of what it errs and disagrees by on a part that it isn't fitted on."""
        out = folds(len(first), PARTS, seed, units) == 0
        predict = self._fit(form, first[~out], second[~out], offsets[~out], units[~out], seed)
        here, there = (predict(each[out][:, self._columns[form]]) for each in (first, second))
        return scatter(np.concatenate([here - offsets[out], here - there]).ravel())

    def _fit(
        self,
        form: Form,
        first: np.ndarray,
        second: np.ndarray,
        offsets: np.ndarray,
        units: np.ndarray,
        seed: int,
    ) -> Predict:
        here, there = first[:, self._columns[form]], second[:, self._columns[form]]
        mean, middle = here.mean(axis=0), offsets.mean(axis=0)
        apart = (here - there) / np.sqrt(2)
        # With both signs nothing is left of a mean that a regression would take off: what tokens of
        # one survey have in common, and the other's haven't, counts as disagreement too.
        x = np.concatenate([here - mean, apart, -apart])
        y = np.concatenate([offsets - middle, np.zeros((2 * len(offsets), 2))])
        probe = fit_probe(LINEAR, x, y, seed, np.tile(units, 3))
        return lambda features: probe.predict(features - mean) + middle
