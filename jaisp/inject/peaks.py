"""How many peaks sep finds where one source or two were injected."""

import numpy as np
import sep
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Table
from jaxtyping import Float64, Int
from scipy.ndimage import gaussian_filter

from jaisp.progress import track
from jaisp.store.layout import UNUSABLE
from jaisp.store.reader import Store, View

THRESHOLD = 3.0  # σ of the matched-filtered image
NEAR_ARCSEC = 2.0
DEBLENDINGS, CONTRAST = 32, 0.005  # SExtractor's defaults


def count_peaks(store: Store, survey: str, sources: Table) -> Int[np.ndarray, " source"]:
    """Peaks within 2″ of each source in a survey's image, −1 where the survey has none."""
    place = np.stack([np.asarray(sources[axis], float) for axis in "xy"], axis=1)
    name = np.array([f"{cell}/{row}" for cell, row in sources["cell", "row"].iterrows()])
    found = np.full(len(sources), -1)
    for one in track(np.unique(name).tolist(), f"peaks {survey}"):
        patch = store[one]
        if survey not in patch:
            continue
        view, own = patch[survey], np.flatnonzero(name == one)
        middle = (view.flux.shape[-1] - 1) / 2
        peaks = (_peaks(view) - middle) * view.grid_arcsec + np.array([patch.x, patch.y])
        away = np.linalg.norm(peaks[:, None] - place[own], axis=2)
        found[own] = (away < NEAR_ARCSEC).sum(axis=0)
    return found


def _peaks(view: View) -> Float64[np.ndarray, "peak 2"]:
    """x, y (pixels) of the peaks in a patch: bands weighted by their inverse variance and summed,
    filtered by a Gaussian of the sharpest PSF, above 3 σ of what that leaves of the noise."""
    usable = np.isfinite(view.flux) & (view.noise > 0)
    usable &= (view.mask & np.uint8(UNUSABLE)) == 0
    weight = np.where(usable, np.where(usable, view.noise, 1.0) ** -2.0, 0.0)
    total = weight.sum(axis=0)
    known = total > 0
    flux = np.where(usable, weight * np.where(usable, view.flux, 0.0), 0.0).sum(axis=0)
    image = np.where(known, flux / np.where(known, total, 1.0), 0.0)
    sharpest = float(np.nanmin(view.psf_fwhm_arcsec)) / view.grid_arcsec
    filtered = gaussian_filter(image, sharpest * gaussian_fwhm_to_sigma)
    sky = filtered[known]
    sigma = 1.4826 * float(np.median(np.abs(sky - np.median(sky))))
    objects = sep.extract(
        filtered,
        THRESHOLD * sigma,
        mask=~known,
        filter_kernel=None,
        minarea=3,
        deblend_nthresh=DEBLENDINGS,
        deblend_cont=CONTRAST,
        clean=False,
    )
    return np.stack([objects["x"], objects["y"]], axis=1)
