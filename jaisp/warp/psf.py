"""The width of a tile's point spread function, by its stars."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import sep
from jaxtyping import Bool, Float, Float32

from jaisp.warp.background import few_of, sky_level
from jaisp.warp.moffat import stamp_fwhm

SMALLEST_SNR = 20.0
LARGEST_ELONGATION = 1.3
LOCUS_WIDTH = 0.15
STAMP_RADIUS = 12
CLEAR = 4  # pixels around a star's centre, none of them bad
SKY_MESH = 32  # of every second pixel
DEBLENDINGS = 8  # levels; a star with a neighbour is not looked for in more
MOST_STARS = 10
NEAREST_STARS = 10


@dataclass(frozen=True)
class Candidates:
    """Compact, round, unsaturated sources: where they are, how wide, and their stamps."""

    x: Float[np.ndarray, " source"]
    y: Float[np.ndarray, " source"]
    half_light: Float[np.ndarray, " source"]
    snr: Float[np.ndarray, " source"]
    stamps: Float32[np.ndarray, "source k k"]


@dataclass(frozen=True)
class Stars:
    """Positions (pixels of the tile) and FWHM (pixels) of stars."""

    x: Float[np.ndarray, " star"]
    y: Float[np.ndarray, " star"]
    fwhm: Float[np.ndarray, " star"]

    def fwhm_at(self, x: float, y: float) -> float:
        """Median of the nearest stars' FWHM in pixels; NaN when there is no star."""
        if not self.fwhm.size:
            return float("nan")
        if self.fwhm.size <= NEAREST_STARS:
            return self._median
        nearest = np.argsort(np.hypot(self.x - x, self.y - y), kind="stable")[:NEAREST_STARS]
        return float(np.median(self.fwhm[nearest]))

    @cached_property
    def _median(self) -> float:
        return float(np.median(self.fwhm))


NO_STARS = Stars(np.zeros(0), np.zeros(0), np.zeros(0))


def find_candidates(
    flux: Float32[np.ndarray, "y x"],
    noise: Float32[np.ndarray, "y x"],
    bad: Bool[np.ndarray, "y x"],
) -> Candidates:
    """Sources that may be stars in one window: S/N > 20, round, whole, no bad pixel near.

    bad: unusable or saturated. Positions are in pixels of the window.
    """
    # One noise for the window: a plane that includes sources would flatten them.
    clean = np.where(bad, np.float32(0), flux / np.float32(sky_level(few_of(noise, ~bad))))
    # The sky is smooth: every second row and column tell it as well.
    few = np.ascontiguousarray(clean[::2, ::2])
    sky = sep.Background(few, mask=np.ascontiguousarray(bad[::2, ::2]), bw=SKY_MESH, bh=SKY_MESH)
    clean -= sky.back().repeat(2, 0).repeat(2, 1)[: clean.shape[0], : clean.shape[1]]
    threshold = 5.0 * max(sky.globalrms, 1e-3)
    try:
        found = sep.extract(clean, threshold, mask=bad, minarea=5, deblend_nthresh=DEBLENDINGS)
    except Exception as error:
        # sep's limits on active objects and deblending: a crowded window tells nothing of stars.
        if "limit" not in str(error) and "overflow" not in str(error):
            raise
        found = np.zeros(0, [(n, float) for n in ("x", "y", "a", "b", "flux", "npix", "flag")])
    column, row = (np.rint(found[n]).astype(int) for n in ("x", "y"))
    inside = (
        (np.minimum(column, row) >= STAMP_RADIUS)
        & (column < flux.shape[1] - STAMP_RADIUS)
        & (row < flux.shape[0] - STAMP_RADIUS)
    )
    snr = found["flux"] / np.sqrt(np.maximum(found["npix"], 1)) / max(sky.globalrms, 1e-3)
    good = inside & (found["flag"] == 0) & (snr > SMALLEST_SNR)
    good &= found["a"] < LARGEST_ELONGATION * found["b"]
    for number in np.flatnonzero(good):
        y, x = row[number], column[number]
        good[number] = not bad[y - CLEAR : y + CLEAR + 1, x - CLEAR : x + CLEAR + 1].any()
    kept, snr = found[good], snr[good]
    radius, failed = sep.flux_radius(
        clean, kept["x"], kept["y"], np.full(len(kept), float(STAMP_RADIUS)), 0.5, mask=bad
    )
    side = 2 * STAMP_RADIUS + 1
    cut = [_stamp(clean, int(y), int(x)) for y, x in zip(row[good], column[good], strict=True)]
    stamps = np.array(cut, np.float32).reshape(-1, side, side)
    measured = (failed == 0) & (radius > 0)
    return Candidates(*(v[measured] for v in (kept["x"], kept["y"], radius, snr, stamps)))


def choose_stars(candidates: Candidates) -> Stars:
    """The stellar locus: the narrow clump at the small end of the half-light radii."""
    if not candidates.x.size:
        return NO_STARS
    radii = candidates.half_light
    small = np.sort(radii[radii <= np.percentile(radii, 30)])
    # The densest half, again and again: the half-sample mode (Bickel & Frühwirth 2006, CSDA 50).
    while len(small) > 3:
        half = (len(small) + 1) // 2
        start = int(np.argmin(small[half - 1 :] - small[: len(small) - half + 1]))
        small = small[start : start + half]
    locus = np.flatnonzero(np.abs(radii / np.median(small) - 1) < LOCUS_WIDTH)
    chosen = locus[np.argsort(-candidates.snr[locus], kind="stable")][:MOST_STARS]
    fwhm = np.array([stamp_fwhm(stamp) for stamp in candidates.stamps[chosen]])
    fitted = np.isfinite(fwhm)
    return Stars(candidates.x[chosen][fitted], candidates.y[chosen][fitted], fwhm[fitted])


def _stamp(image: np.ndarray, row: int, column: int) -> np.ndarray:
    return image[
        row - STAMP_RADIUS : row + STAMP_RADIUS + 1,
        column - STAMP_RADIUS : column + STAMP_RADIUS + 1,
    ]
