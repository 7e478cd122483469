"""What tokens say before they see the sky: their mean, and what their place in the crop adds.

Both are measured on training sky and subtracted before tokens are compared. A network that knows
where in its crop a token lies says so again in the other survey's crop, a few tokens away; what
the place alone tells is no agreement about the sky.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.search import deviations, directions
from jaisp.evaluate.views import (
    FIRST,
    SECOND,
    EncodedSky,
    Shown,
    Side,
    crops,
    everything,
)
from jaisp.store.reader import Store

# As many patches as are shown all four displacements, so that every place is met.
CORNERS = ((0, 0), (1, 1), (0, 1), (1, 0))


@dataclass(frozen=True)
class MeanToken:
    """An encoder's mean token of a survey, by row and column in the crop from `edge` on."""

    by_place: Float[np.ndarray, "row column dimension"]
    edge: int

    def of(
        self, corners: Int[np.ndarray, "patch 2"], side: int
    ) -> Float[np.ndarray, "patch row column dimension"]:
        """The mean token where each token lies, of patches of `side` tokens whose crops begin
        at `corners`."""
        steps = np.arange(side)
        rows, columns = (steps - corners[:, axis, None] - self.edge for axis in (0, 1))
        return self.by_place[rows[:, :, None], columns[:, None, :]]


# By survey and encoder.
Means = Mapping[str, Mapping[str, MeanToken]]


def mean_tokens(
    store: Store,
    numbers: Int[np.ndarray, " patch"],
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
    shown: Shown | None = None,
) -> dict[str, dict[str, MeanToken]]:
    """Mean tokens over patches `numbers` of training sky, by survey and encoder.

    An encoder `blank` is the model shown something else, and has the model's.
    """
    shown = everything(store) if shown is None else shown
    corners = _corners_in_turn(len(numbers), settings)
    inner = slice(settings.edge, -settings.edge or None)
    kept: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in shown}
    valid: dict[str, list[np.ndarray]] = {name: [] for name in shown}
    sides = [(name, FIRST) for name in shown]
    for view in crops(store, numbers, corners, settings, shown, sides):
        valid[view.name].append(view.valid[inner, inner])
        for label, encoder in encoders.items():
            tokens = view.encode(encoder)[inner, inner]
            kept[view.name].setdefault(label, []).append(tokens)
    means: dict[str, dict[str, MeanToken]] = {}
    for name, by_encoder in kept.items():
        means[name] = {
            label: _mean_token(np.stack(tokens), np.stack(valid[name]), settings.edge)
            for label, tokens in by_encoder.items()
        }
        if "model" in means[name]:
            means[name]["blank"] = means[name]["model"]
    return means


def _corners_in_turn(count: int, settings: EvaluateConfig) -> dict[str, np.ndarray]:
    turns = np.array([CORNERS[i % len(CORNERS)] for i in range(count)]).reshape(count, 2)
    corners = -turns * settings.crop_tokens - settings.edge
    return {FIRST: corners, SECOND: corners}


def _mean_token(
    tokens: Float[np.ndarray, "patch row column dimension"], valid: np.ndarray, edge: int
) -> MeanToken:
    """The mean, and each place's difference from it as far as it stands out from the scatter.

    The differences are shrunk by 1 − 1/F, with F the variance between places over that within
    (James & Stein 1961): by all where the places differ no more than chance has it, by nothing
    where tokens know nothing but their place.
    """
    weight = valid[..., None].astype(np.float64)
    count = weight.sum(axis=0)
    everywhere = (tokens * weight).sum(axis=(0, 1, 2)) / max(count.sum(), 1)
    at_place = (tokens * weight).sum(axis=0) / np.maximum(count, 1)
    effect = np.where(count > 0, at_place - everywhere, 0)
    between = float((count * effect**2).sum()) / max(int((count > 0).sum()) - 1, 1)
    repeats = int(count.sum() - (count > 0).sum())
    within = float((weight * (tokens - at_place) ** 2).sum()) / max(repeats, 1)
    # Of places that were seen once alone, nothing says what is theirs and what is the sky's.
    share = max(0.0, 1 - within / between) if between > 0 and repeats else 0.0
    return MeanToken(everywhere + share * effect, edge)


def deviating(sky: EncodedSky, means: Means) -> EncodedSky:
    """The same sky, its encoders' mean tokens subtracted; zero where that leaves only rounding.

    Tokens of encoders without a mean, such as raw pixels, are left out.
    """
    sides = {}
    for (survey, crop), side in sky.sides.items():
        own = {name: mean for name, mean in means[survey].items() if name in side.vectors}
        at = sky.corners[crop], side.valid.shape[1]
        vectors = {name: deviations(side.vectors[name], own[name].of(*at)) for name in own}
        sides[survey, crop] = Side(vectors, side.valid)
    return replace(sky, sides=sides)


def directed(sky: EncodedSky, means: Means) -> EncodedSky:
    """The same sky as vectors of length one: tokens less their mean. Pixels stay as they are, for
    stamps have their own mean subtracted when they are made."""
    sides = {}
    for key, side in deviating(sky, means).sides.items():
        vectors = {name: directions(values) for name, values in side.vectors.items()}
        if "pixels" in sky.sides[key].vectors:
            vectors["pixels"] = sky.sides[key].vectors["pixels"]
        sides[key] = Side(vectors, side.valid)
    return replace(sky, sides=sides)
