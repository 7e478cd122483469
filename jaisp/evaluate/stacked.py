"""One position from several answers, of one survey's tokens or of more: each is read by itself, and
the answers are weighed.

A regression on all tokens of two surveys side by side has twice the numbers to learn from as many
sources; this one learns for each what it learns when it is alone, and then a few weights: stacked
regression (Wolpert 1992; Breiman 1996). What is weighed are answers for sources that the regression
has not seen.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaisp.evaluate.clipped import Positions
from jaisp.evaluate.probe import Probe

Shown = Callable[[np.ndarray], np.ndarray]
Regression = Callable[..., tuple[Probe, Positions]]  # as `fit_clipped`


def fit_stacked(
    shown: Sequence[Shown],
    regression: Regression,
    features: Float[np.ndarray, "source feature"],
    offsets: Positions,
    seed: int,
    units: Shaped[np.ndarray, " source"],
    sorts: Int[np.ndarray, " source"],
) -> Callable[[np.ndarray], Positions]:
    """A linear map of what linear maps answer. shown: what each of them is shown of the features.
    regression: that each is fitted by. units: the piece of sky of each source. sorts: of answers,
    from 0 on."""
    fitted = [regression(part(features), offsets, seed, units, sorts) for part in shown]
    told = np.concatenate([answers for _, answers in fitted], axis=1)
    weigh, _ = regression(told, offsets, seed, units, sorts)

    def predict(features: np.ndarray) -> Positions:
        answers = [
            probe.predict(part(features)) for part, (probe, _) in zip(shown, fitted, strict=True)
        ]
        return weigh.predict(np.concatenate(answers, axis=1))

    return predict
