"""Have the tokens collapsed, and how much do two surveys' tokens share?

All on source tokens of sky that training did not see; docs/ruler.md defines every figure.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import PERCENTILES, sky_units
from jaisp.evaluate.retrieval import UNDERPOWERED, Sources, find_sources_of
from jaisp.evaluate.views import EncodedSky, crop_of

SHUFFLES = 16
# A singular value counts when it stands this many sigma above the shuffled pairing's.
NOISE_SIGMA = 4.0
POSITION_TOKENS = 20_000
RATIO_RESAMPLES = 500
CONTROLS = ("random", "blank")


def participation_ratio(values: Float[np.ndarray, " value"]) -> float:
    """(Σλ)² / Σλ²: how many of the non-negative `values` carry the sum; 0 when all are zero."""
    square = float((values**2).sum())
    return float(values.sum()) ** 2 / square if square > 0 else 0.0


def eigenvalues(tokens: Float[np.ndarray, "token dimension"]) -> Float[np.ndarray, " dimension"]:
    """Eigenvalues of the tokens' covariance, largest first."""
    covariance = np.atleast_2d(np.cov(tokens.astype(np.float64), rowvar=False))
    return np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None)


def rankme(spectrum: Float[np.ndarray, " dimension"]) -> float:
    """Exponential of the entropy of the tokens' singular values (Garrido et al. 2023, ICML).

    spectrum: eigenvalues of the covariance, so that the tokens are centred.
    """
    singular = np.sqrt(spectrum)
    if not singular.sum() > 0:
        return 0.0
    share = singular / singular.sum()
    return float(np.exp(-(share * np.log(share + 1e-12)).sum()))


def position_leak(
    tokens: Float[np.ndarray, "token dimension"],
    position: Float[np.ndarray, "token 2"],
    patch: Int[np.ndarray, " token"],
) -> float:
    """R² with which a ridge fit tells a token's row and column in its crop, on held-out patches.

    Fitted on every other patch and read on the rest, and the other way round; negative values,
    worse than a constant answer, count as 0.
    """
    errors = total = 0.0
    half = np.unique(patch, return_inverse=True)[1] % 2 == 0
    for fit in (half, ~half):
        mean, scale = tokens[fit].mean(axis=0), tokens[fit].std(axis=0) + 1e-9
        x, centre = (tokens - mean) / scale, position[fit].mean(axis=0)
        gram = x[fit].T @ x[fit] + 1e-3 * fit.sum() * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[fit].T @ (position[fit] - centre))
        errors += float(((x[~fit] @ weights + centre - position[~fit]) ** 2).sum())
        total += float(((position[~fit] - centre) ** 2).sum())
    return max(0.0, 1 - errors / total) if total > 0 else 0.0


def shared_spectrum(
    first: Float[np.ndarray, "token first"],
    second: Float[np.ndarray, "token second"],
    seed: int,
) -> Float[np.ndarray, " value"]:
    """Singular values of the cross-covariance of standardised tokens, less the shuffled ones.

    Each less the mean over shuffled pairings of the value of its rank. From the first that does
    not stand 4 σ above that on, all are zero, so that independent tokens share exactly nothing.
    """
    rng = np.random.default_rng(seed)
    first, second = _standardised(first), _standardised(second)
    n = len(first)
    found = np.linalg.svd(first.T @ second / n, compute_uv=False)
    chance = np.array(
        [
            np.linalg.svd(first.T @ second[rng.permutation(n)] / n, compute_uv=False)
            for _ in range(SHUFFLES)
        ]
    )
    excess = found - chance.mean(axis=0)
    stands_out = excess > NOISE_SIGMA * chance.std(axis=0) + 1e-9
    return np.where(np.logical_and.accumulate(stands_out), excess, 0)


def canonical_correlations(
    first: Float[np.ndarray, "token first"],
    second: Float[np.ndarray, "token second"],
    fit: Bool[np.ndarray, " token"],
) -> Float[np.ndarray, " direction"]:
    """Canonical correlations (Hotelling 1936) fitted on tokens `fit` and read on the others."""
    (white_a, read_a), (white_b, read_b) = _whitened(first, fit), _whitened(second, fit)
    left, _, right = np.linalg.svd(white_a.T @ white_b, full_matrices=False)
    a, b = _standardised(read_a @ left), _standardised(read_b @ right.T)
    return (a * b).mean(axis=0)


def collapse(sky: EncodedSky, settings: EvaluateConfig) -> tuple[list[dict[str, Any]], dict]:
    """Rows of the group `collapse`: one a survey and one a pair; and the eigenvalues plotted."""
    rows, spectra = [], {}
    for survey in sky.surveys:
        side = next(key for key in sky.sides if key[0] == survey)
        sources = find_sources_of(sky, (side,), (survey,), settings)
        if len(sources) > 1:
            spectra[survey] = {
                encoder: eigenvalues(sources.tokens(sky, *side, encoder))
                for encoder in ("model", *CONTROLS)
            }
            rows.append(_survey_row(sky, side, sources, spectra[survey], settings))
    for first, second in combinations(sky.surveys, 2):
        sides = ((first, crop_of(first, second)), (second, crop_of(second, first)))
        sources = find_sources_of(sky, sides, (first, second), settings)
        if len(sources) > 3:
            rows.append(_pair_row(sky, sides, sources, settings))
    return rows, spectra


def _survey_row(
    sky: EncodedSky,
    side: tuple[str, str],
    sources: Sources,
    spectra: Mapping[str, Float[np.ndarray, " dimension"]],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    tokens = sources.tokens(sky, *side, "model")
    spectrum = spectra["model"]
    units, unit = sky_units(sources.patch, sky.cells)
    low, high = _ratio_interval(tokens, units, settings)
    row = {
        "survey": side[0],
        "n": len(sources),
        "snr_min": settings.snr_min,
        "dimensions": tokens.shape[1],
        "participation_ratio": participation_ratio(spectrum),
        "participation_ratio_low": low,
        "participation_ratio_high": high,
        "rankme": rankme(spectrum),
        "top5_share": float(spectrum[:5].sum() / spectrum.sum()) if spectrum.any() else None,
        "smallest_std": float(tokens.std(axis=0).min()),
        "position_leak": _leak(sky, side, "model", settings.seed),
        "random_position_leak": _leak(sky, side, "random", settings.seed),
    }
    for control in CONTROLS:
        row[f"{control}_participation_ratio"] = participation_ratio(spectra[control])
        row[f"{control}_rankme"] = rankme(spectra[control])
    return row | {"interval_unit": unit, "underpowered": len(sources) < UNDERPOWERED}


def _pair_row(
    sky: EncodedSky,
    sides: tuple[tuple[str, str], tuple[str, str]],
    sources: Sources,
    settings: EvaluateConfig,
) -> dict[str, Any]:
    row = {
        "survey": "+".join(survey for survey, _ in sides),
        "n": len(sources),
        "snr_min": settings.snr_min,
        "underpowered": len(sources) < UNDERPOWERED,
    }
    for encoder, prefix in (("model", ""), ("random", "random_"), ("blank", "blank_")):
        first, second = (sources.tokens(sky, *side, encoder) for side in sides)
        shared = shared_spectrum(first, second, settings.seed)
        row[f"{prefix}shared_participation_ratio"] = participation_ratio(shared)
        row[f"{prefix}canonical_above_half"] = _canonical_above_half(first, second, sources.patch)
    return row


def _ratio_interval(
    tokens: Float[np.ndarray, "token dimension"],
    units: Int[np.ndarray, " token"],
    settings: EvaluateConfig,
) -> tuple[float, float]:
    """95 % interval of the participation ratio, units of sky drawn with replacement.

    It is (tr C)² / ‖C‖² of the covariance C, which is linear in sums over the units.
    """
    x = tokens.astype(np.float64) - tokens.mean(axis=0, dtype=np.float64)
    members = [x[units == unit] for unit in range(int(units.max()) + 1)]
    products = np.array([(own.T @ own).ravel() for own in members], np.float32)
    sums = np.array([own.sum(axis=0) for own in members])
    counts = np.array([len(own) for own in members])
    n = len(members)
    drawn = np.random.default_rng(settings.seed).multinomial(
        n, np.full(n, 1 / n), size=min(settings.resamples, RATIO_RESAMPLES)
    )
    size = (drawn @ counts)[:, None]
    mean = drawn @ sums / size
    ratios = []
    for product, centre in zip(drawn.astype(np.float32) @ products / size, mean, strict=True):
        covariance = product.reshape(len(centre), -1) - np.outer(centre, centre)
        norm = float((covariance**2).sum())
        ratios.append(float(np.trace(covariance)) ** 2 / norm if norm > 0 else 0.0)
    low, high = np.percentile(ratios, PERCENTILES)
    return float(low), float(high)


def _canonical_above_half(
    first: np.ndarray, second: np.ndarray, patch: Int[np.ndarray, " source"]
) -> float:
    """Directions whose correlation holds above a half on the other half of the patches, mean of
    both ways round; a half, or what chance reaches with so few sources."""
    group = patch if len(np.unique(patch)) > 1 else np.arange(len(patch))
    half = np.unique(group, return_inverse=True)[1] % 2 == 0
    counts = []
    for fit in (half, ~half):
        if min(fit.sum(), (~fit).sum()) < 2:
            return 0.0
        least = max(0.5, NOISE_SIGMA / np.sqrt((~fit).sum()))
        counts.append(int((canonical_correlations(first, second, fit) > least).sum()))
    return float(np.mean(counts))


def _leak(sky: EncodedSky, which: tuple[str, str], encoder: str, seed: int) -> float | None:
    side = sky.sides[which]
    patch, row, column = np.nonzero(side.valid)
    if len(np.unique(patch)) < 2:
        return None
    drawn = np.random.default_rng(seed).permutation(len(patch))[:POSITION_TOKENS]
    patch, row, column = patch[drawn], row[drawn], column[drawn]
    tokens = side.vectors[encoder][patch, row, column].astype(np.float64)
    return position_leak(tokens, np.stack([row, column], axis=1).astype(float), patch)


def _standardised(
    tokens: Float[np.ndarray, "token dimension"],
) -> Float[np.ndarray, "token dimension"]:
    """Zero mean and unit variance in every dimension; a dimension that is constant, zero."""
    tokens = tokens.astype(np.float64)
    centred = tokens - tokens.mean(axis=0)
    std = centred.std(axis=0)
    floor = 1e-6 * np.abs(tokens).max(initial=0.0) + 1e-30
    return np.where(std > floor, centred / np.maximum(std, floor), 0)


def _whitened(
    tokens: Float[np.ndarray, "token dimension"], fit: Bool[np.ndarray, " token"]
) -> tuple[Float[np.ndarray, "fitted component"], Float[np.ndarray, "read component"]]:
    """Principal components of unit variance on tokens `fit`, and the same of the others.

    The variances are raised by a hundredth of their mean (ridge), so that components of noise
    don't fit the pairing, and at most a quarter as many are kept as there are tokens.
    """
    tokens = tokens.astype(np.float64)
    centred = tokens - tokens[fit].mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(centred[fit], rowvar=False)))
    kept = slice(-max(1, min(len(values), int(fit.sum()) // 4)), None)
    scale = np.sqrt(np.clip(values[kept], 0, None) + 0.01 * values.mean() + 1e-30)
    components = centred @ vectors[:, kept] / scale
    return components[fit], components[~fit]
