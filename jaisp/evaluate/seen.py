"""What encoders say of known sources: their tokens about each, which every probe of sources reads.

The tokens around a source are more numbers than sources to fit on, so that probes are shown their
principal components; and a few tokens as they are, since components leave out what varies little,
as colours do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32
from sklearn.decomposition import PCA

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.injected import AROUND, TOKENS, features
from jaisp.evaluate.known import KnownSky
from jaisp.evaluate.probe import BestProbe, Block
from jaisp.evaluate.scene import Encoder

BOTH = "both"
COMPONENTS = 512  # nine tenths of the variance that tokens of 256 dimensions have; 256 held .79
CENTRE = 2.0  # weight of a source's own token among the nine
TOKENS_AROUND = (2 * AROUND + 1) ** 2


@dataclass(frozen=True)
class Seen:
    """What encoders say of known sources.

    shown: by name, the survey and the bands that the encoders were given. components: by name and
    encoder, the leading principal components of the 3 × 3 shared tokens around each source, as
    found on training sky, strongest first; NaN where there are none. reductions: to these
    components, of any other tokens. tokens: by name and encoder, `own_and_mean` of the same tokens.
    probes: those fitted so far, as
    `fit_once` knows them: other test sky is read by the same.
    """

    shown: dict[str, tuple[str, list[str]]]
    components: dict[str, dict[str, Float32[np.ndarray, "source _"]]]
    reductions: dict[str, dict[str, "Reduction"]] = field(default_factory=dict)
    tokens: dict[str, dict[str, Float32[np.ndarray, "source _"]]] = field(default_factory=dict)
    probes: dict[str, BestProbe] = field(default_factory=dict)

    @property
    def views(self) -> dict[str, tuple[str, ...]]:
        """Names of what is read together: each alone, and `both`: all of them."""
        alone = {name: (name,) for name in self.shown}
        return alone | ({BOTH: tuple(self.shown)} if len(self.shown) > 1 else {})

    def of(self, view: str, encoder: str) -> Float32[np.ndarray, "source _"]:
        """An encoder's components of a view, and then its tokens."""
        names = self.views[view]
        parts = [self.components[name][encoder] for name in names]
        # Turn by turn, so that the leading ones of all come first.
        order = np.argsort(
            np.concatenate([np.arange(part.shape[1]) for part in parts]), kind="stable"
        )
        tokens = [self.tokens[name][encoder] for name in names if name in self.tokens]
        return np.concatenate([np.concatenate(parts, axis=1)[:, order], *tokens], axis=1)

    def blocks(self, view: str, encoder: str) -> tuple[Block, ...]:
        """The components, and the tokens, in `of` a view."""
        names = self.views[view]
        edge = sum(self.components[name][encoder].shape[1] for name in names)
        leading = Block(slice(0, edge), components=True)
        return (leading, Block(slice(edge, None))) if self.tokens else (leading,)

    def part(self, chosen: Bool[np.ndarray, " source"]) -> "Seen":
        """Some of the sources."""
        return replace(
            self, components=_part(self.components, chosen), tokens=_part(self.tokens, chosen)
        )


def features_of(
    known: KnownSky,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
    shown: Mapping[str, tuple[str, list[str]]] | None = None,
) -> Seen:
    """What the encoders say of all sources, each window of sky encoded once a name.

    shown: by name, the survey and the bands that the encoders are given, so that bands or surveys
    can be withheld; default every survey, with all of its bands.
    """
    store = known.sky.store
    # A second field may stand beside the run's own: neither test sky nor training sky.
    train = np.asarray(known.sky.sources["split"]) == "train"
    chosen = dict(shown or {survey: (survey, store.bands(survey)) for survey in store.surveys})
    components: dict[str, dict[str, np.ndarray]] = {}
    reductions: dict[str, dict[str, Reduction]] = {}
    tokens: dict[str, dict[str, np.ndarray]] = {}
    for name, (survey, bands) in chosen.items():
        edge = settings.edge
        raw = features(known.sky, survey, encoders, known.tokens, edge, bands, (TOKENS,))
        reductions[name] = {
            label: Reduction.fit(readouts[TOKENS], train, settings.seed)
            for label, readouts in raw.items()
        }
        components[name] = {
            label: reduce.apply(raw[label][TOKENS]) for label, reduce in reductions[name].items()
        }
        tokens[name] = {label: own_and_mean(readouts[TOKENS]) for label, readouts in raw.items()}
    return Seen(chosen, components, reductions, tokens)


def own_and_mean(
    values: Float32[np.ndarray, "source feature"],
) -> Float32[np.ndarray, "source _"]:
    """Of 3 × 3 tokens around each source, its own and the mean of all nine."""
    each = values.reshape(len(values), -1, TOKENS_AROUND)
    return np.concatenate([each[:, :, TOKENS_AROUND // 2], each.mean(axis=2)], axis=1)


def _part(
    by_name: dict[str, dict[str, np.ndarray]], chosen: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: {encoder: values[chosen] for encoder, values in own.items()}
        for name, own in by_name.items()
    }


@dataclass(frozen=True)
class Reduction:
    """Principal components as found on training sky (Halko et al. 2011); None of no source.

    Of features of unit variance; those of the source's own token count more.
    """

    deviation: Float32[np.ndarray, " feature"]
    components: PCA | None

    @classmethod
    def fit(
        cls,
        values: Float32[np.ndarray, "source feature"],
        train: Bool[np.ndarray, " source"],
        seed: int,
    ) -> "Reduction":
        """Of the training sources that have tokens."""
        known = np.isfinite(values).all(axis=1) & train
        count = min(COMPONENTS, int(known.sum()), values.shape[1])
        if not count:
            return cls(np.ones(values.shape[1], np.float32), None)
        own = values[known]
        deviation = own.std(axis=0)
        scaled = cls(deviation, None)._scaled(own)
        reduce = PCA(count, svd_solver="randomized", iterated_power=2, random_state=seed)
        return cls(deviation, reduce.fit(scaled))

    def apply(
        self, values: Float32[np.ndarray, "source feature"]
    ) -> Float32[np.ndarray, "source component"]:
        """NaN of sources without tokens."""
        count = 1 if self.components is None else self.components.n_components_
        found = np.full((len(values), count), np.nan, np.float32)
        known = np.isfinite(values).all(axis=1)
        if self.components is not None and known.any():
            found[known] = self.components.transform(self._scaled(values[known]))
        return found

    def _scaled(
        self, values: Float32[np.ndarray, "source feature"]
    ) -> Float32[np.ndarray, "source feature"]:
        scaled = values / np.where(self.deviation > 0, self.deviation, np.inf)
        scaled.reshape(len(values), -1, TOKENS_AROUND)[:, :, TOKENS_AROUND // 2] *= CENTRE
        return scaled
