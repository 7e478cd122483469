"""What of one survey's image can be made from another survey's tokens.

A small decoder goes from the frozen tokens around a source to the other survey's pixels on the
source's own token; beside it the first survey's own image, brought to the other's PSF and pixels.
docs/ruler.md defines every figure.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from sklearn.decomposition import PCA

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import PERCENTILES
from jaisp.evaluate.known import BOTH, KnownSky, Seen
from jaisp.evaluate.regression import FEWEST_TEST, FEWEST_TRAIN, SHUFFLED, UNDERPOWERED, regress
from jaisp.evaluate.sources import FWHM_IN_SIGMA
from jaisp.evaluate.stamps import Stamps

FAINTEST_SNR = 5.0  # in the band that is reconstructed
IMAGE_COMPONENTS = 48  # of the target's images, which the decoder answers with
NARROWEST = 0.4  # pixels: σ of the kernel that brings a sharper image to a blurred one's PSF
STEPS = 6


def reconstruction(known: KnownSky, seen: Seen, settings: EvaluateConfig) -> list[dict[str, Any]]:
    """Rows of the group `reconstruction`: each survey's tokens with every other survey's bands."""
    rows = []
    for view in seen.views:
        if view == BOTH:
            continue
        survey, bands = seen.shown[view]
        for target, stamps in known.stamps.items():
            if target != survey:
                source = known.stamps[survey].part(np.ones(len(known), bool), bands)
                rows += _rows(known, seen, view, source, stamps, settings)
    return rows


def images(stamps: Stamps) -> Float32[np.ndarray, "source band y x"]:
    """asinh of the S/N of the pixels on each source's own token; NaN for a band of which any of
    them is unusable."""
    own = stamps.images()
    whole = np.isfinite(own).all(axis=(-2, -1))
    return np.where(whole[..., None, None], np.arcsinh(own), np.nan).astype(np.float32)


def _rows(
    known: KnownSky,
    seen: Seen,
    view: str,
    source: Stamps,
    target: Stamps,
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    truth = images(target)
    decoded = _decoded(known, seen, view, truth, settings)
    rows = []
    for number, band in enumerate(target.bands):
        asked = known.sky.column(f"snr_{target.survey}_{band}") >= FAINTEST_SNR
        asked &= np.isfinite(truth[:, number]).all(axis=(1, 2))
        asked &= np.isfinite(decoded["model"][:, number]).all(axis=(1, 2))
        train, test = asked & ~known.is_test, asked & known.is_test
        if train.sum() < FEWEST_TRAIN or test.sum() < FEWEST_TEST:
            continue
        answers = {name: values[test, number] for name, values in decoded.items()}
        answers["interpolation"] = _interpolated(source, target, number, truth, train, test)
        # Whoever answers with the mean image, knowing nothing, scores 0.
        mean = truth[train, number].mean(axis=0)
        answers = {name: values - mean for name, values in answers.items()}
        row = {"survey": view, "target": f"{target.survey}:{band}", "snr_min": FAINTEST_SNR}
        rows.append(row | _figures(known, truth[test, number] - mean, answers, test, settings))
    return rows


def _decoded(
    known: KnownSky,
    seen: Seen,
    view: str,
    truth: Float32[np.ndarray, "source band y x"],
    settings: EvaluateConfig,
) -> dict[str, Float[np.ndarray, "source band y x"]]:
    """Images as decoded from each encoder's tokens: of their leading components, each answered by
    the better of a linear map and a perceptron."""
    flat = np.nan_to_num(truth).reshape(len(truth), -1)
    train = ~known.is_test
    count = min(IMAGE_COMPONENTS, int(train.sum()), flat.shape[1])
    reduce = PCA(count, svd_solver="randomized", random_state=settings.seed).fit(flat[train])
    answers = regress(known, seen, view, reduce.transform(flat), None, settings)
    # NaN stays NaN: no answer for a source that the view doesn't see.
    return {
        name: (found @ reduce.components_ + reduce.mean_).reshape(truth.shape)
        for name, found in answers.items()
    }


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
    row["r"] = pearson(truth, answers["model"])
    row["r_low"], row["r_high"] = _pearson_interval(truth, answers["model"], drawn, settings)
    for name in ("random", "blank", SHUFFLED, "interpolation"):
        row[f"{name}_r"] = pearson(truth, answers[name]) if name in answers else None
    row |= {"truth": known.truth, "interval_unit": unit}
    return row | {"underpowered": len(truth) < UNDERPOWERED}


def pearson(
    truth: Float[np.ndarray, "source y x"], answer: Float[np.ndarray, "source y x"]
) -> float:
    """Correlation coefficient over all pixels; 0 for an answer that is constant."""
    x, y = truth - truth.mean(dtype=float), answer - answer.mean(dtype=float)
    power = float((x**2).sum()) * float((y**2).sum())
    return float((x * y).sum() / np.sqrt(power)) if power > 0 else 0.0


def _pearson_interval(
    truth: Float[np.ndarray, "source y x"],
    answer: Float[np.ndarray, "source y x"],
    units: Int[np.ndarray, " source"],
    settings: EvaluateConfig,
) -> tuple[float, float]:
    """95 % interval, units of sky drawn with replacement."""
    n = int(units.max()) + 1
    rng = np.random.default_rng(settings.seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=settings.resamples)
    x, y = truth - truth.mean(dtype=float), answer - answer.mean(dtype=float)
    count, sx, sy, sxx, syy, sxy = (
        drawn @ np.bincount(units, values.sum(axis=(1, 2)), n)
        for values in (np.ones(x.shape), x, y, x**2, y**2, x * y)
    )
    power = (sxx - sx**2 / count) * (syy - sy**2 / count)
    r = (sxy - sx * sy / count) / np.sqrt(np.where(power > 0, power, np.inf))
    low, high = np.percentile(r, PERCENTILES)
    return float(low), float(high)
