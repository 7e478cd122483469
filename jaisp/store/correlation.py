"""How much noisier sums over correlated pixels are than their noise planes say."""

import numpy as np
from jaxtyping import Float

from jaisp.store.layout import APERTURES_ARCSEC

# Discs of the same area, by diameter: of a square, by its side; of a Gaussian's matched filter,
# (Σ w)² / Σ w² = 4π σ² wide, by its FWHM.
DISC_OF_SQUARE = 2 / np.sqrt(np.pi)
DISC_OF_FWHM = 4 / (2 * np.sqrt(2 * np.log(2)))


def correlation_within(
    correlation: Float[np.ndarray, "band 2"],
    diameters: Float[np.ndarray, "*source band"] | float,
    grid_arcsec: float,
) -> Float[np.ndarray, "*source band"]:
    """Scatter of sums within discs over that of white noise, by bands: an S/N that takes pixels'
    noise as independent is divided by it.

    correlation: a store's `noise_correlation`, measured in discs of 1″ and 3″; a band where it is
    not known (NaN, or not above 0) counts as white. diameters: of the discs, arcsec. grid_arcsec:
    a pixel, for which the noise plane is right.

    Between 1″ and 3″ it is linear in the logarithm of the diameter. Between a pixel and 1″ the
    inverse square is linear in that of the diameter: 1 / f² = 1 / f∞² + c / d² is the noise of
    coarse pixels cut into fine ones, alike within one and independent beyond. For the noise of
    0.3″ pixels on 0.1″ by Lanczos-3 it is right to 4 % from 0.3″ on. A smooth filter such as a
    PSF's lets less of the finest, missing scales through than a disc: there it is up to 6 % low.
    """
    known = np.asarray(correlation, np.float64)
    small_factor, large_factor = np.where(known > 0, known, 1.0).T
    small, large = APERTURES_ARCSEC
    wide = np.maximum(np.asarray(diameters, np.float64), grid_arcsec)
    inside = np.zeros_like(wide)
    if grid_arcsec < small:
        inside = np.clip((wide**-2 - small**-2) / (grid_arcsec**-2 - small**-2), 0, 1)
    share = np.clip(np.log(wide / small) / np.log(large / small), 0, 1)
    below = ((1 - inside) / small_factor**2 + inside) ** -0.5
    return below * (1 - share) + large_factor * share
