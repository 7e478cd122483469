"""Which of a service's tiles are needed: for every patch the one in which it lies deepest."""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from jaisp.sky import Cell, plane_xy

FARTHEST = 80.0  # degrees from a cell's tangent point, of what its plane still shows well


@dataclass(frozen=True)
class Outline:
    """What an image covers, ICRS degrees: a polygon, or a circle about its one corner.

    corners: ra, dec. radius: of a circle; 0 for a polygon.
    """

    corners: Float[np.ndarray, "corner 2"]
    radius: float = 0.0


def read_outline(region: object) -> Outline | None:
    """The outline in an ObsCore `s_region`: STC-S text (POLYGON or CIRCLE, ICRS or FK5), or DALI's
    numbers. None for anything else."""
    if isinstance(region, bytes):
        region = region.decode("latin-1")
    if isinstance(region, str):
        match = re.fullmatch(r"\s*(POLYGON|CIRCLE)\s+(?:(?:ICRS|FK5|J2000)\s+)?(.*)", region, re.I)
        if match is None:
            return None
        try:
            numbers = np.array([float(text) for text in re.split(r"[\s,]+", match[2].strip())])
        except ValueError:
            return None
        is_circle = match[1].upper() == "CIRCLE"
    else:
        try:
            numbers = np.asarray(region, float).ravel()
        except (TypeError, ValueError):
            return None
        is_circle = len(numbers) == 3
    if not np.isfinite(numbers).all() or len(numbers) < 3:
        return None
    if is_circle:
        return Outline(numbers[None, :2], float(numbers[2])) if len(numbers) == 3 else None
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    return Outline(numbers.reshape(-1, 2))


def margins(outline: Outline, cell: Cell) -> Float[np.ndarray, " patch"]:
    """How far inside an outline each patch's centre lies, arcsec; below 0 outside."""
    away = np.full(len(cell), -np.inf)
    ra, dec = outline.corners.T
    if not (_separation(cell.ra, cell.dec, ra, dec) < FARTHEST).all():
        return away
    corners = np.stack(plane_xy(cell, ra, dec), axis=1)
    if outline.radius:
        distance = np.hypot(*(cell.centres - corners[0]).T)
        return outline.radius * 3600 - distance
    first, second = corners, np.roll(corners, -1, axis=0)
    step = second - first
    from_first = cell.centres[:, None] - first
    length = np.maximum((step**2).sum(axis=1), 1e-12)
    along = np.clip((from_first * step).sum(axis=2) / length, 0, 1)
    distance = np.hypot(*np.moveaxis(from_first - along[..., None] * step, -1, 0)).min(axis=1)
    return np.where(_inside(cell.centres, first, second), distance, -distance)


def needed(margin: Float[np.ndarray, "tile patch"], side: float) -> Bool[np.ndarray, " tile"]:
    """The tiles in which some patch lies deepest; and, of patches that lie whole in none, all that
    touch them. side: of a patch, arcsec."""
    if not margin.size:
        return np.zeros(len(margin), bool)
    half = side / np.sqrt(2)
    chosen = np.zeros(len(margin), bool)
    deepest = margin.max(axis=0)
    covered = deepest > -half
    chosen[margin.argmax(axis=0)[covered]] = True
    parted = covered & (deepest < half)
    return chosen | (margin[:, parted] > -half).any(axis=1)


def _inside(
    points: Float[np.ndarray, "point 2"],
    first: Float[np.ndarray, "edge 2"],
    second: Float[np.ndarray, "edge 2"],
) -> Bool[np.ndarray, " point"]:
    """Whether a ray from each point crosses an odd number of edges."""
    x, y = points[:, None, 0], points[:, None, 1]
    crosses = (first[:, 1] > y) != (second[:, 1] > y)
    rise = np.where(second[:, 1] == first[:, 1], 1.0, second[:, 1] - first[:, 1])
    where = first[:, 0] + (y - first[:, 1]) / rise * (second[:, 0] - first[:, 0])
    return (crosses & (x < where)).sum(axis=1) % 2 == 1


def _separation(
    ra: float, dec: float, others_ra: np.ndarray, others_dec: np.ndarray
) -> Float[np.ndarray, " other"]:
    """Great circles, degrees."""
    a, d = np.radians(ra), np.radians(dec)
    b, e = np.radians(others_ra), np.radians(others_dec)
    cosine = np.sin(d) * np.sin(e) + np.cos(d) * np.cos(e) * np.cos(a - b)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
