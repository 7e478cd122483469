"""Encoders that are shown one band less, asked about the sources of a few test patches.

A window of sky is read once for all bands that are withheld.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped

from jaisp.evaluate.injected import TOKENS, InjectedSky, features
from jaisp.evaluate.scene import Encoder, WithoutBand
from jaisp.sampling import evenly

LOOKING = ("model", "random")

# By the band that is withheld, and by encoder, 3 × 3 tokens around each source.
Without = dict[str, dict[str, Float32[np.ndarray, "_ feature"]]]


def without_each(
    encoders: Mapping[str, Encoder], bands: Sequence[str]
) -> Iterator[tuple[str, str, Encoder]]:
    """Band, name and encoder: those that look, each band withheld; of a single band nothing."""
    for band in bands if len(bands) > 1 else ():
        for name in LOOKING:
            yield band, name, WithoutBand(encoders[name], band)


def on_few_patches(
    patches: Shaped[np.ndarray, " source"], is_test: Bool[np.ndarray, " source"], most: int
) -> Bool[np.ndarray, " source"]:
    """Test sources of at most `most` patches, drawn evenly; patches: each source's.

    Every band of every survey is withheld once: each patch is encoded as many times.
    """
    names = np.unique(patches[is_test])
    return is_test & np.isin(patches, names[evenly(len(names), most)])


def few_of(sky: InjectedSky, most: int) -> Bool[np.ndarray, " source"]:
    """`on_few_patches` of a sky's sources."""
    place = zip(sky.sources["cell"], sky.sources["row"], strict=True)
    patches = np.array([f"{cell}/{row}" for cell, row in place], dtype=str)
    return on_few_patches(patches, np.asarray(sky.sources["split"]).astype(str) == "test", most)


def tokens_without(
    sky: InjectedSky,
    survey: str,
    encoders: Mapping[str, Encoder],
    tokens: Int[np.ndarray, "source 2"],
    edge_tokens: int,
) -> Without:
    """What `model` and `random` say around each source's token without each of the bands; NaN
    where it lies beyond the sky, nothing of a survey of one band."""
    blind = list(without_each(encoders, sky.store.bands(survey)))
    named = {f"{name} without {band}": encoder for band, name, encoder in blind}
    seen = features(sky, survey, named, tokens, edge_tokens, readouts=(TOKENS,))
    found: Without = {}
    for band, name, _ in blind:
        nothing = np.full((len(tokens), 1), np.nan, np.float32)
        values = seen[f"{name} without {band}"].get(TOKENS, nothing)
        found.setdefault(band, {})[name] = values
    return found
