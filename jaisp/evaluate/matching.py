"""The classical ways to register two surveys: phase correlation, and matching of catalogues."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jaisp.evaluate.mosaic import Mosaic
from jaisp.evaluate.motion import Moves
from jaisp.evaluate.phase import Band, Images, PhaseCorrelation
from jaisp.evaluate.sources import Catalogue
from jaisp.store.reader import View

RADIUS_ARCSEC = 1.5  # as far as sources are taken for one


def match_catalogues(
    home: Sequence[Catalogue],
    displaced: Sequence[Mapping[str, Catalogue]],
    shifted: tuple[str, int],
    reference: tuple[str, int],
    patch_arcsec: float,
    snr_min: float,
) -> Moves:
    """Displacements of the windowed centroids of sources that are each other's nearest.

    home: of each patch, sources of all surveys; displaced: each survey's for itself. shifted,
    reference: survey, and which of its bands. Sources count above `snr_min` in both bands.
    """
    parts = []
    for number, (at_home, away) in enumerate(zip(home, displaced, strict=True)):
        if reference[0] not in at_home.snr or shifted[0] not in away:
            continue
        first, first_snr = _centroids(at_home, *reference, snr_min)
        second, second_snr = _centroids(away[shifted[0]], *shifted, snr_min)
        if not len(first) or not len(second):
            continue
        distance, nearest = cKDTree(second).query(first)
        _, back = cKDTree(first).query(second)
        mutual = (back[nearest] == np.arange(len(first))) & (distance < RADIUS_ARCSEC)
        nearest = nearest[mutual]
        parts.append(
            Moves(
                patch=np.full(len(nearest), number),
                place=first[mutual] - patch_arcsec / 2,
                moved=1000 * (second[nearest] - first[mutual]),
                snr=(first_snr[mutual] ** -2 + second_snr[nearest] ** -2) ** -0.5,
            )
        )
    return _joined(parts)


def _centroids(
    catalogue: Catalogue, survey: str, band: int, snr_min: float
) -> tuple[Float[np.ndarray, "source 2"], Float[np.ndarray, " source"]]:
    xy, snr = catalogue.band_xy[survey][:, band], catalogue.band_snr[survey][:, band]
    kept = np.isfinite(xy).all(axis=1) & (snr > snr_min)
    return xy[kept], snr[kept]


def _joined(parts: Sequence[Moves]) -> Moves:
    empty = Moves(np.zeros(0, int), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    every = [empty, *parts]
    return Moves(
        *(
            np.concatenate([getattr(part, name) for part in every])
            for name in ("patch", "place", "moved", "snr")
        )
    )


def phase_shift(shifted: View, reference: View, bands: Mapping[str, str]) -> tuple[float, float]:
    """Displacement (mas west and north) of one patch by phase correlation; NaN where too little is
    seen in both.

    bands: which band of each survey; images are resampled to the coarser survey's pixels.
    """
    views = {view.survey: view for view in (shifted, reference)}
    images = Images({survey: _as_mosaic(view) for survey, view in views.items()})
    query: Band = (reference.survey, bands[reference.survey])
    target: Band = (shifted.survey, bands[shifted.survey])
    phase = PhaseCorrelation()
    phase.add(images, query, target)
    if not phase.images:
        return np.nan, np.nan
    east, north = phase.shift_arcsec()
    return -1000 * east, 1000 * north


def _as_mosaic(view: View) -> Mosaic:
    return Mosaic(
        view.survey, view.bands, view.grid_arcsec, view.flux, view.noise, view.mask,
        np.asarray(view.psf_fwhm_arcsec, float),
    )  # fmt: skip
