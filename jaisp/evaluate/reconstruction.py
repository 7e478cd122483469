"""What of one survey's image can be made from another survey's tokens.

A small decoder goes from the frozen tokens around a source to the other survey's pixels on the
source's own token; beside it the first survey's own image, brought to the other's PSF and pixels.
docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from sklearn.decomposition import PCA

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.known import KnownSky
from jaisp.evaluate.regression import (
    FEWEST_TEST,
    FEWEST_TRAIN,
    SHUFFLED,
    UNDERPOWERED,
    Regression,
    regress,
)
from jaisp.evaluate.seen import Seen
from jaisp.evaluate.sources import FWHM_IN_SIGMA
from jaisp.evaluate.stamps import Stamps
from jaisp.evaluate.statistic import drawn_interval, figure_of, pearson_sums

FAINTEST_SNR = 5.0  # in the band that is reconstructed
IMAGE_COMPONENTS = 48  # of the target's images, which the decoder answers with
NARROWEST = 0.4  # pixels: σ of the kernel that brings a sharper image to a blurred one's PSF
STEPS = 6


@dataclass(frozen=True)
class Decoder:
    """From one survey's tokens to another survey's images of the sources.

    view: whose tokens. components: of the target's images. regression: to these components.
    means: of each band's images on training sky. bright: sources whose image in a band is asked
    about, the view's tokens seeing them.
    """

    view: str
    target: Stamps
    components: PCA
    regression: Regression
    means: Float[np.ndarray, "band y x"]
    bright: Bool[np.ndarray, "source band"]

    def decode(
        self, answer: Float[np.ndarray, "source component"]
    ) -> Float[np.ndarray, "source band y x"]:
        """Images, less the mean one: who answers with that, knowing nothing, scores 0."""
        flat = answer @ self.components.components_ + self.components.mean_
        return flat.reshape(len(answer), *self.means.shape) - self.means


def reconstruction(known: KnownSky, seen: Seen, settings: EvaluateConfig) -> list[dict[str, Any]]:
    """Rows of the group `reconstruction`: each survey's tokens with every other survey's bands."""
    decoders = fit_decoders(known, seen, settings)
    return reconstruction_rows(known, seen, decoders, settings)


def fit_decoders(known: KnownSky, seen: Seen, settings: EvaluateConfig) -> list[Decoder]:
    """A decoder of each survey's tokens to every other survey's images: their leading components,
    each answered by the better of a linear map and a perceptron."""
    return [
        _fit(known, seen, view, target, settings)
        for view, (survey, _) in seen.shown.items()
        for target in known.stamps.values()
        if target.survey != survey
    ]


def _fit(
    known: KnownSky, seen: Seen, view: str, target: Stamps, settings: EvaluateConfig
) -> Decoder:
    truth, train = images(target), ~known.is_test
    flat = np.nan_to_num(truth).reshape(len(truth), -1)
    count = min(IMAGE_COMPONENTS, int(train.sum()), flat.shape[1])
    reduce = PCA(count, svd_solver="randomized", random_state=settings.seed).fit(flat[train])
    regression = regress(known, seen, view, reduce.transform(flat), None, settings)
    names = [f"snr_{target.survey}_{band}" for band in target.bands]
    bright = np.stack([known.sky.column(name) >= FAINTEST_SNR for name in names], axis=1)
    bright &= np.isfinite(truth).all(axis=(2, 3))
    bright &= np.isfinite(regression.answers["model"]).all(axis=1, keepdims=True)
    shown = np.where((bright & train[:, None])[..., None, None], truth, 0)
    means = shown.sum(axis=0) / np.maximum(bright[train].sum(axis=0), 1)[:, None, None]
    return Decoder(view, target, reduce, regression, means, bright)


def reconstruction_rows(
    known: KnownSky, seen: Seen, decoders: Sequence[Decoder], settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """A row a decoder and band, on test sky."""
    return [
        row
        for decoder in decoders
        for row in _rows(known, decoder, seen.shown[decoder.view], settings)
    ]


def images(stamps: Stamps) -> Float32[np.ndarray, "source band y x"]:
    """asinh of the S/N of the pixels on each source's own token; NaN for a band of which any of
    them is unusable."""
    own = stamps.images()
    whole = np.isfinite(own).all(axis=(-2, -1))
    return np.where(whole[..., None, None], np.arcsinh(own), np.nan).astype(np.float32)


def _rows(
    known: KnownSky, decoder: Decoder, shown: tuple[str, list[str]], settings: EvaluateConfig
) -> Iterator[dict[str, Any]]:
    survey, bands = shown
    source, target = known.stamps[survey].part(np.ones(len(known), bool), bands), decoder.target
    truth = images(target)
    decoded = {name: decoder.decode(own) for name, own in decoder.regression.answers.items()}
    for number, band in enumerate(target.bands):
        train, test = (decoder.bright[:, number] & own for own in (~known.is_test, known.is_test))
        if train.sum() < FEWEST_TRAIN or test.sum() < FEWEST_TEST:
            continue
        answers = {name: values[test, number] for name, values in decoded.items()}
        mean = decoder.means[number]
        interpolated = _interpolated(source, target, number, truth, train, test)
        answers["interpolation"] = interpolated - mean
        row: dict[str, Any] = {"survey": decoder.view, "target": f"{target.survey}:{band}"}
        row["snr_min"] = FAINTEST_SNR
        yield row | _figures(known, truth[test, number] - mean, answers, test, settings)


def _interpolated(
    source: Stamps,
    target: Stamps,
    number: int,
    truth: Float32[np.ndarray, "source band y x"],
    train: Bool[np.ndarray, " source"],
    test: Bool[np.ndarray, " source"],
) -> Float[np.ndarray, "tested y x"]:
    """A band's images made of the other survey's: all of its bands at this band's PSF, in the
    combination that answers best on training sky."""
    both = train | test
    seeing = float(np.median(target.fwhm[both, number]))
    layers = []
    for band in range(len(source.bands)):
        to = resampling(source, target, float(np.median(source.fwhm[both, band])), seeing)
        flux = np.nan_to_num(source.part(both, [source.bands[band]]).flux.pixels()[:, 0])
        layers.append(np.einsum("ij,sjk,lk->sil", to, flux, to, optimize=True))
    noise = target.noise[both, number, None, None]
    bright = (target.grid_arcsec / source.grid_arcsec) ** 2
    snr = np.stack([bright * layer / noise for layer in layers], axis=-1)
    snr = np.concatenate([snr, np.ones((*snr.shape[:-1], 1))], axis=-1)
    fitted = snr[train[both]].reshape(-1, snr.shape[-1])
    weights = _combination(fitted, truth[train, number].reshape(-1))
    return np.arcsinh(snr[test[both]] @ weights)


def resampling(
    source: Stamps, target: Stamps, source_fwhm: float, target_fwhm: float
) -> Float[np.ndarray, "target source"]:
    """From a row of a source stamp's pixels to those of the target on the central token.

    A sharper image is convolved with a Gaussian that makes up for the difference of the PSFs; a
    more blurred one is interpolated by cubic convolution (Keys 1981).
    """
    side = source.flux.side
    at = (np.arange(side) + 0.5 - side / 2) * source.grid_arcsec
    n = target.tokens
    to = (np.arange(n) + 0.5 - n / 2) * target.grid_arcsec
    distance = np.abs(to[:, None] - at)
    missing = (target_fwhm**2 - source_fwhm**2) / FWHM_IN_SIGMA**2
    sigma = np.sqrt(max(missing, 0.0))
    if sigma > NARROWEST * source.grid_arcsec:
        weight = np.exp(-((distance / sigma) ** 2) / 2)
    else:
        weight = _keys(distance / source.grid_arcsec)
    return weight / weight.sum(axis=1, keepdims=True)


def _keys(steps: Float[np.ndarray, "target source"]) -> Float[np.ndarray, "target source"]:
    near = 1.5 * steps**3 - 2.5 * steps**2 + 1
    far = -0.5 * steps**3 + 2.5 * steps**2 - 4 * steps + 2
    return np.where(steps < 1, near, np.where(steps < 2, far, 0))


def _combination(
    layers: Float[np.ndarray, "pixel layer"], truth: Float[np.ndarray, " pixel"]
) -> Float[np.ndarray, " layer"]:
    """Weights whose asinh of the weighted sum is nearest to the truth (Gauss & Newton)."""
    weights = np.zeros(layers.shape[1])
    for _ in range(STEPS):
        total = layers @ weights
        slope = layers / np.sqrt(1 + total**2)[:, None]
        gram = slope.T @ slope
        gram[np.diag_indices_from(gram)] *= 1 + 1e-6
        weights = (
            weights + np.linalg.lstsq(gram, slope.T @ (truth - np.arcsinh(total)), rcond=None)[0]
        )
    return weights


def _figures(
    known: KnownSky,
    truth: Float[np.ndarray, "tested y x"],
    answers: Mapping[str, Float[np.ndarray, "tested y x"]],
    test: Bool[np.ndarray, " source"],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    units, unit = known.units
    drawn = np.unique(units[test], return_inverse=True)[1]
    row: dict[str, Any] = {"n": len(truth), "pixels": truth.size}
    limits = settings.resamples, settings.seed
    sums = {name: pearson_sums(truth, answer) for name, answer in answers.items()}
    row["r"] = figure_of("pearson", sums["model"])
    row["r_low"], row["r_high"] = drawn_interval("pearson", sums["model"], drawn, *limits)
    for name in ("random", "blank", SHUFFLED, "interpolation"):
        row[f"{name}_r"] = figure_of("pearson", sums[name]) if name in sums else None
    row |= {"truth": known.truth, "interval_unit": unit}
    return row | {"underpowered": len(truth) < UNDERPOWERED}
