"""What is true of each injected source in each survey's frame, and how classical answers do."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from astropy.table import Table
from jaxtyping import Bool, Float64

from jaisp.config import Config
from jaisp.inject.likelihood import MAS, Stamps, bound_mas, fit_positions
from jaisp.inject.placement import BOTH, EACH

LOWEST_SNR = 3.0  # in a band, for its centroid to count, unless it is the best one
START_FWHM = 0.3  # from the truth, where a fit begins


@runtime_checkable
class Band(Protocol):
    """One band of one survey, as `jaisp.inject.points` has seen it."""

    stamps: Stamps
    flux: Float64[np.ndarray, " source"]
    centroid: Float64[np.ndarray, "source 2"]


def measured_columns(
    sources: Table,
    surveys: Mapping[str, Sequence[Band]],
    config: Config,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """x_S, y_S, snr_S, bound_mas_S, errors of centroid and PSF fit; S: each survey and `both`."""
    place = np.stack([np.asarray(sources[axis], float) for axis in "xy"], axis=1)
    known = {
        survey: np.any([band.stamps.seen for band in bands], axis=0)
        for survey, bands in surveys.items()
    }
    kind = np.asarray(sources["kind"])
    groups = dict(surveys) | {BOTH: [band for bands in surveys.values() for band in bands]}
    known[BOTH] = np.all(list(known.values()), axis=0)
    columns = {}
    for survey, bands in groups.items():
        own = known[survey]
        values = {
            f"{{}}_{survey}": place + _shift(bands),
            f"centroid_d{{}}_mas_{survey}": MAS * _centroid(bands, config.model.token_arcsec),
            f"psf_fit_d{{}}_mas_{survey}": MAS
            * _fit(
                bands, kind == (BOTH if survey == BOTH else EACH), config.model.token_arcsec, rng
            ),
        }
        for pattern, both_axes in values.items():
            for number, axis in enumerate("xy"):
                columns[pattern.format(axis)] = np.where(own, both_axes[:, number], np.nan)
        total = np.sum([signal(band) ** 2 for band in bands], axis=0)
        columns[f"snr_{survey}"] = np.where(own, np.sqrt(total), np.nan)
        bound = bound_mas([b.stamps for b in bands], [b.flux for b in bands])
        columns[f"bound_mas_{survey}"] = np.where(own, bound, np.nan)
    return columns


def signal(band: Band) -> Float64[np.ndarray, " source"]:
    """S/N of each source in a band."""
    return band.flux * band.stamps.sensitivity()


def _shift(bands: Sequence[Band]) -> Float64[np.ndarray, "source 2"]:
    """Where a survey shows sources less where they are: the bands' shifts, weighted by S/N²."""
    weight = np.stack([signal(band) ** 2 for band in bands])
    shifts = np.stack([band.stamps.shift for band in bands])
    with np.errstate(invalid="ignore"):
        return (weight[..., None] * shifts).sum(axis=0) / weight.sum(axis=0)[:, None]


def _centroid(bands: Sequence[Band], most_arcsec: float) -> Float64[np.ndarray, "source 2"]:
    """Mean of the bands' centroids, weighted by what each could know; arcsec from the truth.

    Each band's shift is known. Bands below S/N 3 are left out, but for the best.
    """
    snr = np.stack([signal(band) for band in bands])
    bound = np.stack([bound_mas([band.stamps], [band.flux]) for band in bands])
    found = np.stack([band.centroid for band in bands])
    far = ~(np.hypot(found[..., 0], found[..., 1]) < most_arcsec)
    sharpest = bound == np.nanmin(np.where(np.isfinite(bound), bound, np.inf), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where((snr > LOWEST_SNR) | sharpest, bound**-2.0, 0.0)
    weight = np.where(far | ~np.isfinite(weight), 0.0, weight)
    with np.errstate(invalid="ignore"):
        mean = (weight[..., None] * np.nan_to_num(found)).sum(axis=0)
        return mean / weight.sum(axis=0)[:, None]


def _fit(
    bands: Sequence[Band],
    wanted: Bool[np.ndarray, " source"],
    most_arcsec: float,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "source 2"]:
    """The PSF fit of all bands, begun a little beside the truth; of the sources that are wanted."""
    stamps = [band.stamps for band in bands]
    width = min(float(np.nanmin(s.fwhm_arcsec)) for s in stamps if s.seen.any())
    angle = rng.uniform(0.0, 2.0 * np.pi, len(stamps[0].place))
    start = START_FWHM * width * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    start[~wanted] = np.nan
    return fit_positions(stamps, start, most_arcsec, 0.5 * width)
