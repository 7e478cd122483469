"""Have the tokens collapsed, and how much do two surveys' tokens share?

All on source tokens of sky that training did not see; docs/ruler.md defines every figure. What two
surveys share is measured on tokens less what their place in the crop says (`means.py`): two
networks that only know where in its crop a token lies agree about that, and about no sky.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import PERCENTILES, sky_units
from jaisp.evaluate.means import Means, deviating
from jaisp.evaluate.retrieval import UNDERPOWERED, Sources, find_sources_of
from jaisp.evaluate.views import EncodedSky, Side, crop_of

# Of 16, one in which bright sources met by chance could hide all that is shared.
SHUFFLES = 64
# A singular value counts when it stands this many sigma above the shuffled pairing's.
NOISE_SIGMA = 4.0
POSITION_TOKENS = 20_000
SPECTRUM_RESAMPLES = 200
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


def top5_share(spectrum: Float[np.ndarray, " dimension"]) -> float:
    """Share of the variance in the five strongest directions; 0 without any variance."""
    return float(spectrum[:5].sum() / spectrum.sum()) if spectrum.any() else 0.0


def collapse(
    sky: EncodedSky, means: Means, settings: EvaluateConfig
) -> tuple[list[dict[str, Any]], dict]:
    """Rows of the group `collapse`: one a survey and one a pair; and the eigenvalues plotted.

    means: the mean tokens of training sky, by place in the crop.
    """
    rows, spectra = [], {}
    for survey in sky.surveys:
        key = next(key for key in sky.sides if key[0] == survey)
        sources = find_sources_of(sky, (key,), (survey,), settings)
        if len(sources) > 1 and "model" in sky.sides[key].vectors:
            spectra[survey] = {
                encoder: eigenvalues(sources.tokens(sky, *key, encoder))
                for encoder in ("model", *CONTROLS)
            }
            rows.append(_survey_row(sky, key, sources, spectra[survey], settings))
    deviations = deviating(sky, means)
    for first, second in combinations(sky.surveys, 2):
        keys = ((first, crop_of(first, second)), (second, crop_of(second, first)))
        sources = find_sources_of(sky, keys, (first, second), settings)
        if len(sources) > 3 and all("model" in deviations.sides[key].vectors for key in keys):
            rows.append(_pair_row(deviations, keys, sources, settings))
    return rows, spectra


def _survey_row(
    sky: EncodedSky,
    key: tuple[str, str],
    sources: Sources,
    spectra: Mapping[str, Float[np.ndarray, " dimension"]],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    tokens = sources.tokens(sky, *key, "model")
    units, unit = sky_units(sources.patch, sky.cells)
    row: dict[str, Any] = {
        "survey": key[0],
        "n": len(sources),
        "snr_min": settings.snr_min,
        "dimensions": tokens.shape[1],
    }
    figures = {name: figure(spectra["model"]) for name, figure in SPECTRAL.items()}
    figures["smallest_std"] = float(tokens.std(axis=0).min())
    limits = _spectrum_intervals(tokens, units, figures, settings)
    for name, value in figures.items():
        row[name] = value
        row[f"{name}_low"], row[f"{name}_high"] = limits[name]
    for name, figure in SPECTRAL.items():
        for control in CONTROLS:
            row[f"{control}_{name}"] = figure(spectra[control])
    side, corners = sky.sides[key], sky.corners[key[1]]
    for encoder, prefix in (("model", ""), *((c, f"{c}_") for c in CONTROLS)):
        row[f"{prefix}position_leak"] = _leak(side, corners, encoder, settings.seed)
        if encoder != "model":
            weakest = sources.tokens(sky, *key, encoder).std(axis=0).min()
            row[f"{prefix}smallest_std"] = float(weakest)
    return row | {"interval_unit": unit, "underpowered": len(sources) < UNDERPOWERED}


def _pair_row(
    sky: EncodedSky,
    keys: tuple[tuple[str, str], tuple[str, str]],
    sources: Sources,
    settings: EvaluateConfig,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "survey": "+".join(survey for survey, _ in keys),
        "n": len(sources),
        "snr_min": settings.snr_min,
        "underpowered": len(sources) < UNDERPOWERED,
    }
    order = np.random.default_rng(settings.seed).permutation(len(sources))
    for prefix in ("", "shuffled_", "random_", "blank_"):
        encoder = prefix.rstrip("_") if prefix in ("random_", "blank_") else "model"
        first, second = (sources.tokens(sky, *key, encoder) for key in keys)
        second = second[order] if prefix == "shuffled_" else second
        shared = shared_spectrum(first, second, settings.seed)
        row[f"{prefix}shared_participation_ratio"] = participation_ratio(shared)
        row[f"{prefix}canonical_above_half"] = _canonical_above_half(first, second, sources.patch)
    return row


SPECTRAL: Mapping[str, Callable[[np.ndarray], float]] = {
    "participation_ratio": participation_ratio,
    "rankme": rankme,
    "top5_share": top5_share,
}


def _spectrum_intervals(
    tokens: Float[np.ndarray, "token dimension"],
    units: Int[np.ndarray, " token"],
    figures: Mapping[str, float],
    settings: EvaluateConfig,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of what follows from the tokens' covariance, units of sky drawn with
    replacement: a draw's covariance is a sum over its units.

    A draw has fewer different sources than the sky, and so fewer directions: all draws are scaled
    alike, so that their mean is the figure.
    """
    x = tokens.astype(np.float64) - tokens.mean(axis=0, dtype=np.float64)
    n = int(units.max()) + 1
    drawn = np.random.default_rng(settings.seed).multinomial(
        n, np.full(n, 1 / n), size=min(settings.resamples, SPECTRUM_RESAMPLES)
    )
    found: dict[str, list[float]] = {name: [] for name in (*SPECTRAL, "smallest_std")}
    for times in drawn:
        weight = times[units]
        mean = weight @ x / weight.sum()
        covariance = (x.T * weight) @ x / weight.sum() - np.outer(mean, mean)
        spectrum = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0, None)
        for name, figure in SPECTRAL.items():
            found[name].append(figure(spectrum))
        found["smallest_std"].append(float(np.sqrt(max(0.0, covariance.diagonal().min()))))
    return {name: _about(figures[name], np.array(values)) for name, values in found.items()}


def _about(figure: float, values: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    mean = values.mean()
    low, high = np.percentile(values * (figure / mean if mean > 0 else 1.0), PERCENTILES)
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


def _leak(side: Side, corners: Int[np.ndarray, "patch 2"], encoder: str, seed: int) -> float | None:
    patch, row, column = np.nonzero(side.valid)
    if len(np.unique(patch)) < 2:
        return None
    drawn = np.random.default_rng(seed).permutation(len(patch))[:POSITION_TOKENS]
    patch, row, column = patch[drawn], row[drawn], column[drawn]
    tokens = side.vectors[encoder][patch, row, column].astype(np.float64)
    in_crop = np.stack([row, column], axis=1) - corners[patch]
    return position_leak(tokens, in_crop.astype(float), patch)


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
