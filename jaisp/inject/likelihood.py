"""Point sources in noise: what the pixels allow, and what a fit of the PSF makes of them.

The noise is the background's, independent from pixel to pixel of the detector. A source has one
position and, in each band, a flux of its own. With the fluxes eliminated, what is left of the
Fisher matrix for the position is the bound (Cramér–Rao), and Gauss–Newton steps on the likelihood
are the fit (variable projection: Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from jaisp.inject.effective import draw

STEPS_MOST = 20
CLOSE = 0.01  # standard errors: a step shorter than this ends the fit
MAS = 1000.0


@dataclass
class Stamps:
    """All sources as one band sees them, on native pixels; fluxes in nJy.

    coefficients: of the effective PSF at each place. place: −1 for a source that the band doesn't
    see. weight: 1 / σ², 0 where a pixel can't be used. position: x, y of each in its stamp.
    jacobian: pixels per arcsec on the cell's plane. shift: arcsec (west, north) of where the band's
    tile shows the source less where it is.
    """

    survey: str
    band: str
    coefficients: Float32[np.ndarray, "place step step side side"]
    place: Int[np.ndarray, " source"]
    data: Float32[np.ndarray, "source size size"]
    weight: Float32[np.ndarray, "source size size"]
    position: Float64[np.ndarray, "source 2"]
    jacobian: Float64[np.ndarray, "source 2 2"]
    shift: Float64[np.ndarray, "source 2"]
    fwhm_arcsec: Float[np.ndarray, " source"]

    @property
    def seen(self) -> np.ndarray:
        """Which sources the band sees."""
        return self.place >= 0

    def sensitivity(self) -> Float64[np.ndarray, " source"]:
        """S/N of the matched filter for a flux of 1 nJy; 0 where it sees nothing."""
        return np.sqrt(self.at_truth[:, 0])

    @cached_property
    def at_truth(self) -> Float64[np.ndarray, "source 9"]:
        """`sums` at the true position, 0 where the band sees nothing; of the PSF and the noise
        alone, before there are data."""
        rows = np.flatnonzero(self.seen)
        total = np.zeros((len(self.place), 9))
        total[rows] = self.sums(rows, self.position[rows])
        return total

    def sums(
        self, rows: Int[np.ndarray, " row"], position: Float[np.ndarray, "row 2"]
    ) -> Float64[np.ndarray, "row 9"]:
        """Weighted sums over pixels of pp, pp_x, pp_y, p_x p_x, p_x p_y, p_y p_y, dp, dp_x, dp_y:
        p the PSF at a position in the stamp, p_x and p_y its slopes, d the data."""
        return _sums(
            self.coefficients, self.place[rows], self.data[rows], self.weight[rows],
            np.asarray(position, float),
        )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
@no_type_check
def _sums(coefficients, place, data, weight, position):
    size = data.shape[1]
    result = np.zeros((len(place), 9))
    p = np.empty((size, size), np.float32)
    px, py = np.empty_like(p), np.empty_like(p)
    zero = np.float32(0)
    for n in range(len(place)):
        draw(coefficients[place[n]], position[n, 0], position[n, 1], size, p, px, py)
        # Rows are summed in single precision, in vectors, and the rows' sums in double.
        for v in range(size):
            pp, ppx, ppy, xx, xy, yy = zero, zero, zero, zero, zero, zero
            dp, dx, dy = zero, zero, zero
            for u in range(size):
                w = weight[n, v, u]
                a, b, c, d = p[v, u], px[v, u], py[v, u], data[n, v, u] * w
                wa, wb = w * a, w * b
                pp += wa * a
                ppx += wa * b
                ppy += wa * c
                xx += wb * b
                xy += wb * c
                yy += w * c * c
                dp += d * a
                dx += d * b
                dy += d * c
            result[n, 0] += pp
            result[n, 1] += ppx
            result[n, 2] += ppy
            result[n, 3] += xx
            result[n, 4] += xy
            result[n, 5] += yy
            result[n, 6] += dp
            result[n, 7] += dx
            result[n, 8] += dy
    return result


def information(
    sums: Float[np.ndarray, "row 9"], flux: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row 2 2"]:
    """Fisher matrix of a position in pixels, one flux having been fitted with it."""
    pp, ppx, ppy, xx, xy, yy = sums[:, :6].T
    matrix = np.stack(
        [xx - ppx**2 / pp, xy - ppx * ppy / pp, xy - ppx * ppy / pp, yy - ppy**2 / pp]
    )
    return (flux**2 * matrix).T.reshape(-1, 2, 2)


def bound_mas(
    bands: Sequence[Stamps], fluxes: Sequence[Float[np.ndarray, " source"]]
) -> Float64[np.ndarray, " source"]:
    """Standard error that no unbiased estimate of a coordinate goes below, rms over x and y, mas.

    fluxes: true ones, by band. NaN where no band sees a source.
    """
    total = np.zeros((len(bands[0].place), 2, 2))
    for band, flux in zip(bands, fluxes, strict=True):
        rows = np.flatnonzero(band.seen)
        own = information(band.at_truth[rows], flux[rows])
        total[rows] += _on_plane(own, band.jacobian[rows])
    determinant = np.linalg.det(total)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = 0.5 * (total[:, 0, 0] + total[:, 1, 1]) / determinant
        return np.where(determinant > 0, MAS * np.sqrt(variance), np.nan)


def fit_positions(
    bands: Sequence[Stamps],
    start: Float[np.ndarray, "source 2"],
    most_arcsec: float,
    step_arcsec: float,
) -> Float64[np.ndarray, "source 2"]:
    """Where the likelihood of all bands together has its maximum, arcsec (west, north) from truth.

    Each band's shift is known to the fit. start: where it begins, likewise. Steps are at most
    `step_arcsec`; NaN for a fit that doesn't end, or farther from the truth than `most_arcsec`.
    """
    found = np.array(start, float)
    seen = np.any([band.seen for band in bands], axis=0)
    found[~seen] = np.nan
    going = seen & np.isfinite(found).all(axis=1)
    for _ in range(STEPS_MOST):
        rows = np.flatnonzero(going)
        if not len(rows):
            break
        step, errors = _step(bands, rows, found[rows])
        length = np.hypot(*step.T)
        step *= np.minimum(1.0, step_arcsec / np.maximum(length, 1e-12))[:, None]
        found[rows] += step
        lost = ~(np.hypot(*found[rows].T) < most_arcsec)
        found[rows[lost]] = np.nan
        going[rows[lost | (errors < CLOSE)]] = False
    found[going] = np.nan
    return found


def _step(
    bands: Sequence[Stamps], rows: np.ndarray, at: Float[np.ndarray, "row 2"]
) -> tuple[Float[np.ndarray, "row 2"], Float[np.ndarray, " row"]]:
    """One Gauss–Newton step of some sources, arcsec, and its length in standard errors."""
    slope, curvature = np.zeros((len(rows), 2)), np.zeros((len(rows), 2, 2))
    for band in bands:
        own = np.flatnonzero(band.seen[rows])
        these = rows[own]
        jacobian = band.jacobian[these]
        moved = band.position[these] + np.einsum("nij,nj->ni", jacobian, at[own])
        sums = band.sums(these, moved)
        # A step that leads off a source's stamp leads nowhere.
        lit = sums[:, 0] > 0
        own, these, jacobian, sums = own[lit], these[lit], jacobian[lit], sums[lit]
        flux = sums[:, 6] / sums[:, 0]
        uphill = flux[:, None] * (sums[:, 7:9] - flux[:, None] * sums[:, 1:3])
        slope[own] += np.einsum("nji,nj->ni", jacobian, uphill)
        curvature[own] += _on_plane(information(sums, flux), jacobian)
    # A little is added to the diagonal, so that a source of no flux stays where it is.
    curvature += 1e-6 * np.eye(2) * (np.trace(curvature, axis1=1, axis2=2)[:, None, None] + 1e-12)
    step = np.linalg.solve(curvature, slope[..., None])[..., 0]
    return step, np.sqrt(np.einsum("ni,nij,nj->n", step, curvature, step))


def _on_plane(
    matrix: Float[np.ndarray, "row 2 2"], jacobian: Float[np.ndarray, "row 2 2"]
) -> Float[np.ndarray, "row 2 2"]:
    return jacobian.transpose(0, 2, 1) @ matrix @ jacobian
