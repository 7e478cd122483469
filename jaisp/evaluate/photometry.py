"""What tokens know of a source's fluxes, colours and redshift, beside aperture photometry.

Of each survey's tokens, the fluxes of its own bands and of every other survey's are asked for.
docs/ruler.md defines every figure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.known import SIMULATED, KnownSky
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.regression import (
    CLASSICAL,
    Regression,
    figures,
    regress,
    tested_sources,
)
from jaisp.evaluate.scatter import scatter, scatter_interval
from jaisp.evaluate.seen import Seen
from jaisp.evaluate.stamps import Stamps

FAINTEST_SNR, BRIGHTEST_SNR = 5.0, 100.0
REDSHIFT_SNR = 10.0  # in quadrature over all bands
OUTLIER = 0.15  # of |Δz| / (1 + z)
MAG_IN_DEX = 2.5


@dataclass(frozen=True)
class Target:
    """One quantity of the sources. values: NaN for those outside of the S/N window.

    kind: `flux` (log10 of nJy), `colour` (mag) or `redshift` (log10 of 1 + z).
    """

    name: str
    kind: str
    values: Float[np.ndarray, " source"]
    snr_min: float
    snr_max: float | None


UNITS = {"flux": "dex", "colour": "mag", "redshift": "Δz/(1+z)"}


def photometry(known: KnownSky, seen: Seen, settings: EvaluateConfig) -> list[dict[str, Any]]:
    """Rows of the group `photometry`: each view of the tokens with every target."""
    targets = list(photometry_targets(known))
    fitted = photometry_regressions(known, seen, targets, settings)
    return photometry_rows(known, targets, fitted, settings)


def photometry_regressions(
    known: KnownSky, seen: Seen, targets: Sequence[Target], settings: EvaluateConfig
) -> dict[str, Regression]:
    """By view of the tokens, regressions of all targets."""
    values = np.stack([target.values for target in targets], axis=1)
    apertures = {name: aperture_features(known, *shown) for name, shown in seen.shown.items()}
    fitted = {}
    for view, names in seen.views.items():
        together = np.concatenate([apertures[name] for name in names], axis=1)
        fitted[view] = regress(known, seen, view, values, together, settings)
    return fitted


def photometry_rows(
    known: KnownSky,
    targets: Sequence[Target],
    fitted: Mapping[str, Regression],
    settings: EvaluateConfig,
    outcomes: Outcomes | None = None,
) -> list[dict[str, Any]]:
    """A row a view and target, on test sky. outcomes: where every source's outcome is kept."""
    rows = []
    for view, found in fitted.items():
        for number, target in enumerate(targets):
            own = {name: answer[:, number] for name, answer in found.answers.items()}
            row = _row(known, target, own, settings)
            if row is None:
                continue
            names = {"survey": view, "target": target.name}
            rows.append({**names, **row})
            if outcomes is not None:
                tested = tested_sources(known, target.values, own["model"])
                both = np.stack([target.values, own["model"]], axis=1)[tested]
                identity = {**names, "figure": "r2"}
                outcomes.add("photometry", identity, known.names[tested], both, "r2")
    return rows


def photometry_targets(known: KnownSky) -> Iterator[Target]:
    """Fluxes of all bands, colours of neighbouring bands and of the first with the last, and the
    redshift of galaxies."""
    window = FAINTEST_SNR, BRIGHTEST_SNR
    for survey, band in known.bands:
        values, snr = _log_flux(known, survey, band), known.sky.column(f"snr_{survey}_{band}")
        yield Target(f"{survey}:{band}", "flux", _within(values, snr, *window), *window)
    for survey in known.sky.store.surveys:
        bands = known.sky.store.bands(survey)
        pairs = [*pairwise(bands), (bands[0], bands[-1])]
        for blue, red in dict.fromkeys(pairs if len(bands) > 1 else []):
            values = _log_flux(known, survey, red) - _log_flux(known, survey, blue)
            weaker = np.minimum(*(known.sky.column(f"snr_{survey}_{b}") for b in (blue, red)))
            colour = _within(MAG_IN_DEX * values, weaker, *window)
            yield Target(f"{survey}:{blue}-{red}", "colour", colour, *window)
    if known.truth == SIMULATED:
        total = np.sqrt(sum(known.snr(survey) ** 2 for survey in known.sky.store.surveys))
        galaxy = np.asarray(known.sky.sources["type"]) != "star"
        log = np.log10(1 + np.where(galaxy, known.sky.column("redshift"), np.nan))
        values = _within(log, total, REDSHIFT_SNR, np.inf)
        yield Target("redshift", "redshift", values, REDSHIFT_SNR, None)


def aperture_features(
    known: KnownSky, survey: str, bands: list[str]
) -> Float[np.ndarray, "source feature"]:
    """asinh of the flux in apertures of three radii in every band, in units of the typical noise
    of each; and asinh of its S/N."""
    return aperture_asinh(known.stamps[survey].part(np.ones(len(known), bool), bands))


def aperture_asinh(stamps: Stamps) -> Float[np.ndarray, "source feature"]:
    """See `aperture_features`."""
    flux = stamps.apertures()
    noise = np.where(np.isfinite(stamps.noise), stamps.noise, np.nan)[..., None]
    typical = np.nan_to_num(np.nanmedian(noise, axis=0), nan=1.0) if len(stamps) else 1.0
    pixels = np.sqrt(np.pi) * stamps.fwhm[..., None] / stamps.grid_arcsec
    both = np.stack([flux / (typical * pixels), flux / (noise * pixels)])
    return np.concatenate(np.arcsinh(both).reshape(2, len(stamps), -1), axis=1)


def _log_flux(known: KnownSky, survey: str, band: str) -> Float[np.ndarray, " source"]:
    flux = known.sky.column(f"flux_{survey}_{band}")
    positive = flux > 0
    return np.where(positive, np.log10(np.where(positive, flux, 1)), np.nan)


def _within(values: np.ndarray, snr: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where((snr >= low) & (snr <= high), values, np.nan)


def _row(
    known: KnownSky,
    target: Target,
    answers: dict[str, Float[np.ndarray, " source"]],
    settings: EvaluateConfig,
) -> dict[str, Any] | None:
    tested = tested_sources(known, target.values, answers["model"])
    if not tested.any():
        return None
    row: dict[str, Any] = {"snr_min": target.snr_min, "snr_max": target.snr_max}
    row["unit"] = UNITS[target.kind]
    row |= figures(target.values, answers, known, tested, settings, "aperture")
    if target.kind == "redshift":
        row |= _redshift(known, target.values, answers, tested, settings)
    return row


def _redshift(
    known: KnownSky,
    truth: Float[np.ndarray, " source"],
    answers: dict[str, Float[np.ndarray, " source"]],
    tested: Bool[np.ndarray, " source"],
    settings: EvaluateConfig,
) -> dict[str, Any]:
    """Scatters as Δz / (1 + z), and the share of outliers; R² stays that of log(1 + z)."""
    model, aperture = (
        10 ** (answers[name][tested] - truth[tested]) - 1 for name in ("model", CLASSICAL)
    )
    units = np.unique(known.units[0][tested], return_inverse=True)[1]
    low, high = scatter_interval(model, units, settings.resamples, settings.seed)
    return {
        "scatter": scatter(model),
        "scatter_low": low,
        "scatter_high": high,
        "aperture_scatter": scatter(aperture),
        "outlier_share": float((np.abs(model) > OUTLIER).mean()),
        "aperture_outlier_share": float((np.abs(aperture) > OUTLIER).mean()),
    }
