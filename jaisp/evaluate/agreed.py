"""One survey's readout of positions that another survey's tokens agree with.

A readout that is fitted on one survey's tokens may lean on directions that carry nothing in these,
and much in another's: nothing at home holds them down. Here it is fitted to the first survey's
positions, and to say of the other's tokens of the same training sources what it says of its own. No
position is told of the other's tokens.
"""

import numpy as np
from jaxtyping import Float, Float32, Shaped

from jaisp.evaluate.readout import LINEAR, ONE_TOKEN, PEAK_DIMENSIONS, Form, Readout

AGREEABLE: tuple[Form, ...] = (LINEAR, ONE_TOKEN, PEAK_DIMENSIONS)  # linear forms


class AgreedReadout:
    """Fitted on sources of training sky that both surveys see.

    Parameters
    ----------
    first, second: features of either survey around each source. offsets: what to read, in the first
        one's frame. snr, units, kinds, own: as a `Readout` has them; kinds are linear ones.

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
        kinds: tuple[Form, ...] = AGREEABLE,
        own: slice = slice(None),
    ) -> None:
        # A regression takes means off. Taken off before, and with differences of both signs, what
        # one survey's tokens have in common and the other's haven't counts as disagreement too.
        self._means = {
            float(level): (first[snr == level].mean(axis=0), offsets[snr == level].mean(axis=0))
            for level in np.unique(snr)
        }
        centre, middle = self._means_of(snr)
        apart = (first - second) / np.float32(np.sqrt(2))
        features = np.concatenate([first - centre, apart, -apart])
        answers = np.concatenate([offsets - middle, np.zeros((2 * len(offsets), 2))])
        thrice = np.tile(snr, 3), np.tile(units, 3)
        # Where a source lies is one sort of answer, that both surveys say the same another: else a
        # readout that says nothing would be right twice of three times.
        sorts = np.repeat([0, 1, 1], len(offsets))
        self._readout = Readout(features, answers, *thrice, seed, kinds, own, sorts=sorts)
        self.chosen = self._readout.chosen

    def predict(
        self, features: Float32[np.ndarray, "source feature"], snr: Float[np.ndarray, " source"]
    ) -> Float[np.ndarray, "source 2"]:
        """Offsets of sources of either survey whose nominal S/N are among those fitted."""
        centre, middle = self._means_of(snr)
        return self._readout.predict(features - centre, snr) + middle

    def _means_of(
        self, snr: Float[np.ndarray, " source"]
    ) -> tuple[Float32[np.ndarray, "source feature"], Float[np.ndarray, "source 2"]]:
        """Of the first survey's training sources of each one's S/N: features and offsets."""
        means = [self._means[float(level)] for level in snr]
        return np.stack([each[0] for each in means]), np.stack([each[1] for each in means])
