"""Draw sources through a PSF that varies over a tile, integrated over pixels.

The sources of a square of the tile are drawn onto a grid finer than the PSF's highest frequency:
points as narrow Gaussians, galaxies as sums of Gaussians sheared by their shape and the local WCS
(Hogg & Lang 2013, PASP 125, 719) and widened likewise. One FFT replaces the narrow Gaussian by the
square's exact PSF and the pixel, and is folded to the pixels' own frequencies, which samples it.
Sources whose light reaches farther than a square's margin are drawn in larger boxes of their own.
"""

import math
from dataclasses import dataclass, fields
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32, Int
from numba import njit
from scipy.fft import ifft, irfft, next_fast_len, rfft2

from jaisp.simulate.profiles import BULGE, DISC, POINT, sersic
from jaisp.simulate.psf import TilePsf

PROFILES = (POINT, sersic(DISC), sersic(BULGE))
POINT_KIND, DISC_KIND, BULGE_KIND = range(3)
NARROW = 1.0  # variance of the Gaussian that stands for a point, in samples²
FAR = 6.0  # σ: no Gaussian is drawn beyond
NEGLIGIBLE_PROFILE = 1e-4  # of the noise: Gaussians of profiles are cut where they are fainter
NEGLIGIBLE_WING = 0.02  # of the noise: a PSF may be cut where it is fainter
REACHES = np.array([6.4, 9.6, 12.8, 19.2, 25.6, 38.4, 51.2])  # arcsec: half sides of boxes


@dataclass(frozen=True)
class Sources:
    """What to draw: places in native pixels, fluxes in nJy.

    `covariance`: xx, xy, yy (pixel²) that the unit radius of a profile stands for.
    """

    position: Float[np.ndarray, "source 2"]  # x, y
    flux: Float[np.ndarray, " source"]
    covariance: Float[np.ndarray, "source 3"]
    kind: Int[np.ndarray, " source"]  # which of PROFILES

    def __getitem__(self, rows: np.ndarray) -> "Sources":
        return Sources(self.position[rows], self.flux[rows], self.covariance[rows], self.kind[rows])

    @staticmethod
    def join(parts: "list[Sources]") -> "Sources":
        """One after another."""
        names = [field.name for field in fields(Sources)]
        return Sources(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    @staticmethod
    def points(
        position: Float[np.ndarray, "source 2"], flux: Float[np.ndarray, " source"]
    ) -> "Sources":
        """Stars."""
        count = len(position)
        return Sources(
            np.asarray(position, float),
            np.broadcast_to(np.asarray(flux, float), (count,)),
            np.zeros((count, 3)),
            np.zeros(count, int),
        )


def draw_scene(
    image: Float32[np.ndarray, "y x"], psf: TilePsf, sources: Sources, halo: int = 0
) -> None:
    """Add the noiseless light of `sources` to `image` (native pixels, nJy a pixel), in place.

    `halo` pixels of each side of the image lie beyond the tile.
    """
    reach = _reach(psf, sources)
    x, y = sources.position.T
    height, width = psf.shape
    outside = np.maximum(np.maximum(-x, x - width), np.maximum(-y, y - height)) - halo
    row, column = psf.block_of(x, y)
    alone = (reach > psf.margin) | (outside > 0.5 * psf.margin)
    alone &= outside < reach
    together = (outside <= 0.5 * psf.margin) & ~alone
    side = _fast_side(psf.block + 2 * psf.margin, psf.optics.oversampling)
    for i in range(psf.blocks[0]):
        for j in range(psf.blocks[1]):
            inside = together & (row == i) & (column == j)
            if inside.any():
                corner = (j * psf.block - 2 * psf.margin, i * psf.block - 2 * psf.margin)
                _draw_box(image, psf, (i, j), sources[inside], corner, side, halo)
    halves = REACHES / psf.pixel_arcsec
    for source in np.flatnonzero(alone):
        half = halves[min(np.searchsorted(halves, reach[source]), len(halves) - 1)]
        side_alone = _fast_side(2 * math.ceil(half), psf.optics.oversampling)
        corner = (round(x[source]) - side_alone // 2, round(y[source]) - side_alone // 2)
        block = (int(row[source]), int(column[source]))
        _draw_box(image, psf, block, sources[np.array([source])], corner, side_alone, halo)


def _reach(psf: TilePsf, sources: Sources) -> np.ndarray:
    """How far (native pixels) from each source its light matters."""
    level = NEGLIGIBLE_WING * psf.noise
    reach = psf.optics.wing_reach(sources.flux, level)
    for kind, profile in enumerate(PROFILES):
        rows = np.flatnonzero(sources.kind == kind)
        if kind == POINT_KIND or len(rows) == 0:
            continue
        xx, xy, yy = sources.covariance[rows].T
        area = np.sqrt(np.maximum(xx * yy - xy**2, 1e-12))[:, None] * profile.variance
        peak = sources.flux[rows][:, None] * profile.weight / (2.0 * np.pi * (area + 1.0))
        sigmas = np.sqrt(2.0 * np.log(np.maximum(peak / level, 1.0))).clip(max=FAR)
        longest = 0.5 * (xx + yy + np.hypot(xx - yy, 2 * xy))
        extent = (sigmas * np.sqrt(longest[:, None] * profile.variance)).max(axis=1)
        reach[rows] = np.maximum(reach[rows], extent + 0.25 * psf.margin)
    return reach


def _draw_box(
    image: np.ndarray,
    psf: TilePsf,
    block: tuple[int, int],
    sources: Sources,
    corner: tuple[int, int],
    side: int,
    halo: int,
) -> None:
    """Draw sources in a square box of native pixels whose first pixel is `corner` (x, y)."""
    fine = psf.optics.oversampling
    samples = side * fine
    scene = np.zeros((samples, samples), np.float32)
    position = fine * (sources.position - corner)
    level = NEGLIGIBLE_PROFILE * psf.noise / fine**2
    _draw(scene, position, sources.flux, fine**2 * sources.covariance, sources.kind, level)
    spectrum = rfft2(scene, overwrite_x=True)
    frequency = np.fft.fftfreq(samples, 1.0 / fine)  # cycles per native pixel
    positive = np.fft.rfftfreq(samples, 1.0 / fine)
    spectrum *= psf.narrowed(*block, frequency, positive, NARROW / fine**2)
    seen = _sampled(spectrum, side, fine)
    left, top = corner[0] + halo, corner[1] + halo
    y0, y1 = max(0, top), min(image.shape[0], top + side)
    x0, x1 = max(0, left), min(image.shape[1], left + side)
    if y0 < y1 and x0 < x1:
        image[y0:y1, x0:x1] += seen[y0 - top : y1 - top, x0 - left : x1 - left]


def _sampled(spectrum: np.ndarray, side: int, fine: int) -> np.ndarray:
    """The image of a spectrum at every `fine`-th sample; rows are folded before they are turned."""
    folded = spectrum.reshape(fine, side, -1).sum(axis=0)
    rows = ifft(folded, axis=0, overwrite_x=True)
    return irfft(rows, n=side * fine, axis=1, overwrite_x=True)[:, ::fine] * np.float32(fine)


def _fast_side(least: int, fine: int) -> int:
    """Native pixels of a box of at least that size, an even number whose FFT is fast."""
    side = least + least % 2
    while next_fast_len(side * fine, real=True) != side * fine:
        side += 2
    return side


def _draw(
    scene: np.ndarray,
    position: np.ndarray,
    flux: np.ndarray,
    covariance: np.ndarray,
    kind: np.ndarray,
    level: float,
) -> None:
    count = max(len(profile.weight) for profile in PROFILES)
    weight, variance = np.zeros((2, len(PROFILES), count))
    for row, profile in enumerate(PROFILES):
        weight[row, : len(profile.weight)] = profile.weight
        variance[row, : len(profile.weight)] = profile.variance
    _draw_all(scene, position, flux, covariance, kind, weight, variance, level)


@njit(cache=True)
@no_type_check
def _draw_all(scene, position, flux, covariance, kind, weight, variance, level):
    for source in range(len(flux)):
        x, y = position[source]
        xx, xy, yy = covariance[source]
        for k in range(weight.shape[1]):
            share, v = weight[kind[source], k], variance[kind[source], k]
            if share > 0.0:
                amount = flux[source] * share
                cut = level if v > 0.0 else 0.0
                _add(scene, x, y, amount, v * xx + NARROW, v * xy, v * yy + NARROW, cut)


@njit(cache=True)
@no_type_check
def _add(scene, x, y, flux, xx, xy, yy, level):
    """Add a Gaussian's values at samples, within the ellipse where it matters."""
    height, width = scene.shape
    determinant = xx * yy - xy * xy
    a, b = yy / determinant, -xy / determinant
    peak = flux / (2.0 * math.pi * math.sqrt(determinant))
    reach2 = FAR**2
    if level > 0.0:
        reach2 = min(2.0 * math.log(max(abs(peak) / level, 1.0)), FAR**2)
    half_height = math.sqrt(reach2 * yy)
    # Along a row, exp of a quadratic follows from its neighbour by two multiplications.
    second = math.exp(-a)
    for row in range(max(0, math.ceil(y - half_height)), min(height, int(y + half_height) + 1)):
        dy = row - y
        rest = reach2 - dy * dy / yy
        if rest <= 0.0:
            continue
        half_width = math.sqrt(rest / a)
        centre = x - b * dy / a
        first = max(0, math.ceil(centre - half_width))
        last = min(width - 1, math.floor(centre + half_width))
        dx = first - centre
        value = peak * math.exp(-0.5 * (a * dx * dx + dy * dy / yy))
        step = math.exp(-a * (dx + 0.5))
        for column in range(first, last + 1):
            scene[row, column] += value
            value *= step
            step *= second
