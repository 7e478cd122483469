"""What tokens know of the sizes and shapes of galaxies, beside adaptive moments.

docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.known import SIMULATED, KnownSky
from jaisp.evaluate.regression import Regression, figures, regress, tested_sources
from jaisp.evaluate.seen import Seen
from jaisp.evaluate.sources import FWHM_IN_SIGMA
from jaisp.evaluate.stamps import Stamps

FAINTEST_SNR = 20.0  # in every survey
TARGETS = {"log_half_light_radius": "dex", "e1": "1", "e2": "1"}


def morphology(known: KnownSky, seen: Seen, settings: EvaluateConfig) -> list[dict[str, Any]]:
    """Rows of the group `morphology`: each view of the tokens with size and ellipticity."""
    return morphology_rows(known, morphology_regressions(known, seen, settings), settings)


def morphology_regressions(
    known: KnownSky, seen: Seen, settings: EvaluateConfig
) -> dict[str, Regression]:
    """By view of the tokens, regressions of size and ellipticity; none of sky without truth."""
    if known.truth != SIMULATED:
        return {}
    values = morphology_targets(known)
    moments = {name: moment_features(known, *own, values) for name, own in seen.shown.items()}
    fitted = {}
    for view, names in seen.views.items():
        classical = np.concatenate([moments[name] for name in names], axis=1)
        fitted[view] = regress(known, seen, view, values, classical, settings)
    return fitted


def morphology_rows(
    known: KnownSky, fitted: Mapping[str, Regression], settings: EvaluateConfig
) -> list[dict[str, Any]]:
    """A row a view and target, on test sky."""
    rows: list[dict[str, Any]] = []
    values = morphology_targets(known) if fitted else np.zeros((0, 0))
    for view, found in fitted.items():
        for number, (target, unit) in enumerate(TARGETS.items()):
            own = {name: answer[:, number] for name, answer in found.answers.items()}
            tested = tested_sources(known, values[:, number], own["model"])
            if tested.any():
                row = {"survey": view, "target": target, "unit": unit, "snr_min": FAINTEST_SNR}
                row |= figures(values[:, number], own, known, tested, settings, "moments")
                rows.append(row)
    return rows


def morphology_targets(known: KnownSky) -> Float[np.ndarray, "source target"]:
    """log10 of the half-light radius in arcsec, e1 and e2 of galaxies above FAINTEST_SNR in every
    survey; NaN of all other sources."""
    radius = known.sky.column("half_light_radius_arcsec")
    galaxy = (np.asarray(known.sky.sources["type"]) != "star") & (radius > 0)
    for survey in known.sky.store.surveys:
        galaxy &= known.snr(survey) >= FAINTEST_SNR
    shape = [
        np.log10(np.where(radius > 0, radius, 1)),
        *(known.sky.column(e) for e in ("e1", "e2")),
    ]
    return np.where(galaxy[:, None], np.stack(shape, axis=1), np.nan)


def moment_features(
    known: KnownSky,
    survey: str,
    bands: list[str],
    targets: Float[np.ndarray, "source target"],
) -> Float[np.ndarray, "source feature"]:
    """Adaptive moments in every band of the sources that have targets, with what corrects them
    for the PSF; NaN of all others."""
    asked = np.isfinite(targets).any(axis=1)
    stamps = known.stamps[survey].part(asked, bands)
    own = np.concatenate([*_corrected(stamps)], axis=1)
    found = np.full((len(known), own.shape[1]), np.nan)
    found[asked] = own
    return found


def _corrected(stamps: Stamps) -> Iterator[Float[np.ndarray, "source band"]]:
    """Sizes and ellipticities as measured and less the PSF, S/N, PSF size, concentration."""
    size, e1, e2, snr = np.moveaxis(stamps.moments(), -1, 0)
    psf = 2 * (stamps.fwhm / FWHM_IN_SIGMA) ** 2
    resolution = np.clip(1 - psf / size, 0.1, 1)
    round_psf = np.clip(np.hypot(e1, e2) / resolution, 0, 0.95)
    # From (a² − b²) / (a² + b²) to (a − b) / (a + b).
    factor = 1 / resolution / (1 + np.sqrt(1 - round_psf**2))
    within = np.maximum(stamps.apertures(), 0)
    yield np.log10(size)
    yield np.log10(size * resolution)
    yield from (e1, e2)
    yield from (np.clip(e1 * factor, -1, 1), np.clip(e2 * factor, -1, 1))
    yield np.arcsinh(snr)
    yield np.log10(psf)
    yield within[..., 0] / np.maximum(within[..., 2], 1e-3 + within[..., 0])
