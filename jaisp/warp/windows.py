"""What a few windows of a tile tell of all of it: its stars, and what its noise plane includes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from jaisp.store.layout import UNUSABLE, Flag
from jaisp.warp.background import few_of, sky_level
from jaisp.warp.psf import NO_STARS, Candidates, Stars, choose_stars, find_candidates

WINDOW = 400
WINDOWS_A_SIDE = 2
MOST_BAD = 0.9
SKY, BRIGHT = 2.0, 10.0  # σ
FEWEST_BRIGHT = 20
ENOUGH_CANDIDATES, ENOUGH_BRIGHT = 20, 40
SOURCE_NOISE = 1.05


@dataclass(frozen=True)
class Section:
    """A part of a tile in its own units; unusable pixels have NaN flux and noise, and a flag."""

    flux: Float32[np.ndarray, "y x"]
    noise: Float32[np.ndarray, "y x"]
    flags: UInt8[np.ndarray, "y x"]


@dataclass(frozen=True)
class Findings:
    """Stars, and whether the noise is higher on sources than on the sky beside them."""

    stars: Stars
    noise_includes_sources: bool


def look(read: Callable[[slice, slice], Section], rows: slice, columns: slice) -> Findings:
    """Look at windows spread over the part `rows` × `columns` of a tile, until they tell enough.

    read: gives a part of the tile.
    """
    candidates: list[tuple[Candidates, int, int]] = []
    excess: list[np.ndarray] = []
    found_stars = found_bright = 0
    for y, x in _windows(rows, columns):
        if found_stars >= ENOUGH_CANDIDATES and found_bright >= ENOUGH_BRIGHT:
            break
        part = read(y, x)
        bad = (part.flags & np.uint8(UNUSABLE | Flag.SATURATED)) != 0
        if bad.mean() > MOST_BAD:
            continue
        found = find_candidates(part.flux, part.noise, bad)
        candidates.append((found, y.start, x.start))
        excess.append(_noise_excess(part, bad))
        found_stars, found_bright = found_stars + len(found.x), found_bright + len(excess[-1])
    if not candidates:
        return Findings(NO_STARS, False)
    merged = Candidates(
        np.concatenate([c.x + x0 for c, _, x0 in candidates]),
        np.concatenate([c.y + y0 for c, y0, _ in candidates]),
        *(
            np.concatenate([getattr(c, name) for c, _, _ in candidates])
            for name in ("half_light", "snr", "stamps")
        ),
    )
    ratios = np.concatenate(excess)
    includes = len(ratios) >= FEWEST_BRIGHT and np.median(ratios) > SOURCE_NOISE
    return Findings(choose_stars(merged), bool(includes))


def _noise_excess(part: Section, bad: Bool[np.ndarray, "y x"]) -> Float32[np.ndarray, " pixel"]:
    """Noise of the brightest pixels over the noise of the sky in the same window.

    Brightest: the upper tenth of those above 10σ; in fainter ones the sky's share prevails.
    """
    flux, noise = part.flux, part.noise
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = (flux - np.float32(sky_level(few_of(flux, ~bad)))) / noise
        bright = np.flatnonzero((snr > BRIGHT) & ~bad)
        sky = few_of(noise, (snr < SKY) & ~bad)
    if not sky.size or bright.size < FEWEST_BRIGHT:
        return np.zeros(0, np.float32)
    count = max(FEWEST_BRIGHT, bright.size // 10)
    brightest = bright[np.argpartition(flux.ravel()[bright], -count)[-count:]]
    return noise.ravel()[brightest] / np.float32(sky_level(sky))


def _windows(rows: slice, columns: slice) -> list[tuple[slice, slice]]:
    """Windows spread evenly over a part, or all of it when it is small; far corners first."""
    along = []
    for part in (rows, columns):
        size = part.stop - part.start
        count = min(WINDOWS_A_SIDE, -(-size // WINDOW))
        starts = part.start + np.linspace(0, max(size - WINDOW, 0), count).astype(int)
        along.append([slice(int(s), min(int(s) + WINDOW, part.stop)) for s in starts])
    corners = [(i, j) for i in range(len(along[0])) for j in range(len(along[1]))]
    corners.sort(key=lambda corner: corner[0] != corner[1])
    return [(along[0][i], along[1][j]) for i, j in corners]
