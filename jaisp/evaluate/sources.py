"""The sources of a patch, or of several joined: detected in every survey, measured in all.

Positions are in arcsec from the outer corner of the patch's first pixel, x towards the west and y
towards the north: one frame for every survey of the patch, for all are cut on one plane.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sep
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from jaisp.evaluate.mosaic import Mosaic
from jaisp.store.correlation import DISC_OF_FWHM, correlation_within
from jaisp.store.layout import UNUSABLE
from jaisp.store.reader import View

DETECTION_SIGMA = 3.0
FWHM_IN_SIGMA = 2 * np.sqrt(2 * np.log(2))
# The aperture that gives a Gaussian point source on background noise its best S/N.
APERTURE_IN_FWHM = 0.673
PIXELS_OF_UNKNOWN_FWHM = 3.0


@dataclass(frozen=True)
class Catalogue:
    """Sources of one patch.

    xy: position from the detection. snr: by survey, in quadrature over its bands (bands of
    negative flux don't count). band_snr: by survey, aperture S/N a band. band_xy: by survey,
    windowed centroids a band, NaN where there is none.
    """

    xy: Float[np.ndarray, "source 2"]
    snr: dict[str, Float[np.ndarray, " source"]]
    band_snr: dict[str, Float[np.ndarray, "source band"]]
    band_xy: dict[str, Float[np.ndarray, "source band 2"]]

    def __len__(self) -> int:
        return len(self.xy)

    def select(
        self, surveys: Sequence[str], snr_min: float, token_arcsec: float
    ) -> Int[np.ndarray, " kept"]:
        """Sources above `snr_min` in every one of `surveys`, the brightest of each token."""
        weakest = np.min([self.snr[survey] for survey in surveys], axis=0)
        order = np.argsort(-weakest, kind="stable")
        order = order[weakest[order] > snr_min]
        _, first = np.unique(self.tokens(token_arcsec)[order], axis=0, return_index=True)
        return np.sort(order[first])

    def tokens(self, token_arcsec: float) -> Int[np.ndarray, "source 2"]:
        """Row and column of the token that each source falls on."""
        return np.floor(self.xy[:, ::-1] / token_arcsec).astype(int)


def usable(view: View | Mosaic) -> Bool[np.ndarray, "band y x"]:
    """Pixels with a flux and a noise that no flag forbids."""
    flagged = (view.mask & np.uint8(UNUSABLE)) != 0
    return np.isfinite(view.flux) & np.isfinite(view.noise) & (view.noise > 0) & ~flagged


def fwhm_arcsec(view: View | Mosaic) -> Float[np.ndarray, " band"]:
    """The PSF's FWHM, and where it is unknown, three pixels."""
    fwhm = np.asarray(view.psf_fwhm_arcsec, float)
    return np.where(fwhm > 0, fwhm, PIXELS_OF_UNKNOWN_FWHM * view.grid_arcsec)


def find_sources(
    views: Mapping[str, View] | Mapping[str, Mosaic],
    correlations: Mapping[str, Float[np.ndarray, "band 2"]],
) -> Catalogue:
    """Detect on each survey's image, merge by position, measure in every survey's bands.

    correlations: each survey's `noise_correlation`, measured over white-noise scatter in
    apertures of 1″ and 3″.
    """
    images = {name: _Image(view, correlations[name]) for name, view in views.items()}
    sharpest_first = sorted(images.values(), key=lambda image: image.sharpest)
    xy = np.zeros((0, 2))
    for image in sharpest_first:
        xy = _merge(xy, image.detect(), radius=image.sharpest / 2)
    measured = {name: image.measure(xy) for name, image in images.items()}
    band_snr = {name: snr for name, (snr, _) in measured.items()}
    return Catalogue(
        xy=xy,
        snr={n: np.sqrt((np.maximum(s, 0) ** 2).sum(axis=1)) for n, s in band_snr.items()},
        band_snr=band_snr,
        band_xy={name: centroids for name, (_, centroids) in measured.items()},
    )


def _merge(
    known: Float[np.ndarray, "known 2"], new: Float[np.ndarray, "new 2"], radius: float
) -> Float[np.ndarray, "both 2"]:
    """Add the positions that have no known one within `radius` (arcsec)."""
    if not len(known) or not len(new):
        return np.concatenate([known, new])
    distance, _ = cKDTree(known).query(new)
    return np.concatenate([known, new[distance > radius]])


class _Image:
    """One survey's bands of a patch, with the sky's level taken off."""

    def __init__(self, view: View | Mosaic, correlation: Float[np.ndarray, "band 2"]) -> None:
        self.grid = view.grid_arcsec
        self.good = usable(view)
        self.fwhm = fwhm_arcsec(view)
        covered = self.good.any(axis=(1, 2))
        self.sharpest = float(self.fwhm[covered].min()) if covered.any() else np.inf
        self.noise = np.where(self.good, view.noise, 1).astype(np.float32)
        self.flux = np.where(self.good, view.flux, 0).astype(np.float32)
        for flux, good in zip(self.flux, self.good, strict=True):
            if good.any():
                flux[good] -= _sky_level(flux, good)
        self.correlation = correlation

    def detect(self) -> Float[np.ndarray, "source 2"]:
        """Positions on the bands' sum, each weighted by its inverse variance."""
        weight = self.good / self.noise**2
        total = weight.sum(axis=0)
        good = total > 0
        if not good.any():
            return np.zeros((0, 2))
        snr = (self.flux * weight).sum(axis=0) / np.sqrt(np.where(good, total, 1))
        sep.set_extract_pixstack(max(300_000, snr.size))
        sep.set_sub_object_limit(4096)
        found = sep.extract(
            snr.astype(np.float32),
            DETECTION_SIGMA * np.median(self._correlation_within(DISC_OF_FWHM * self.fwhm)),
            err=1.0,
            mask=~good,
            minarea=3,
            filter_kernel=_gaussian(self.sharpest / self.grid),
        )
        return (np.stack([found["x"], found["y"]], axis=1) + 0.5) * self.grid

    def measure(
        self, xy: Float[np.ndarray, "source 2"]
    ) -> tuple[Float[np.ndarray, "source band"], Float[np.ndarray, "source band 2"]]:
        """Aperture S/N and windowed centroid (arcsec) of each source in each band."""
        bands = len(self.flux)
        snr, centroids = np.zeros((len(xy), bands)), np.full((len(xy), bands, 2), np.nan)
        x, y = (xy / self.grid - 0.5).T.copy()
        radii = np.maximum(APERTURE_IN_FWHM * self.fwhm, self.grid)
        correlation = self._correlation_within(2 * radii)
        for band in range(bands):
            if not len(xy) or not self.good[band].any():
                continue
            bad = ~self.good[band]
            flux, error, _ = sep.sum_circle(
                self.flux[band], x, y, radii[band] / self.grid, err=self.noise[band], mask=bad
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                snr[:, band] = np.nan_to_num(flux / error / correlation[band], posinf=0, neginf=0)
            sigma = self.fwhm[band] / FWHM_IN_SIGMA / self.grid
            new_x, new_y, flag = sep.winpos(self.flux[band], x, y, sigma, mask=bad)
            moved = np.hypot(new_x - x, new_y - y) * self.grid
            kept = (flag == 0) & (moved < self.fwhm[band]) & (snr[:, band] > 0)
            centroids[kept, band] = (np.stack([new_x, new_y], axis=1)[kept] + 0.5) * self.grid
        return snr, centroids

    def _correlation_within(
        self, diameters: Float[np.ndarray, " band"]
    ) -> Float[np.ndarray, " band"]:
        return correlation_within(self.correlation, diameters, self.grid)


def _sky_level(flux: Float[np.ndarray, "y x"], good: Bool[np.ndarray, "y x"]) -> float:
    rows, columns = flux.shape
    return float(sep.Background(flux, mask=~good, bw=columns, bh=rows).globalback)


def _gaussian(fwhm_pixels: float) -> Float[np.ndarray, "k k"]:
    half = max(1, int(np.ceil(1.5 * fwhm_pixels)))
    r2 = np.add.outer(np.arange(-half, half + 1) ** 2, np.arange(-half, half + 1) ** 2)
    kernel = np.exp(-r2 * FWHM_IN_SIGMA**2 / 2 / fwhm_pixels**2)
    return kernel / kernel.sum()
