"""One source or two close ones: what can still be told apart."""

import numpy as np
from astropy.table import Table
from jaxtyping import Float64, Int

SEPARATION_ARCSEC = (0.3, 1.5)
SHARE = (0.1, 0.5)  # of the fainter, of the total flux


def add_pairs(sources: Table, rng: np.random.Generator) -> None:
    """Make every other source of a S/N a pair: components, separation_arcsec, angle_deg (of the
    fainter from the brighter, from +x to +y), flux_share; x and y are the centre of light."""
    count = len(sources)
    double = np.zeros(count, bool)
    snr = np.asarray(sources["snr"])
    for level in np.unique(snr):
        own = np.flatnonzero(snr == level)
        double[rng.permutation(own)[: len(own) // 2]] = True
    sources["components"] = np.where(double, 2, 1)
    for name, limits in (
        ("separation_arcsec", SEPARATION_ARCSEC),
        ("angle_deg", (0.0, 360.0)),
        ("flux_share", SHARE),
    ):
        sources[name] = np.where(double, rng.uniform(*limits, count), 0.0)


def components_of(
    sources: Table,
) -> tuple[
    Int[np.ndarray, " point"], Float64[np.ndarray, "point 2"], Float64[np.ndarray, " point"]
]:
    """Which source each point belongs to, arcsec (west, north) from it, and its share."""
    angle = np.radians(np.asarray(sources["angle_deg"], float))
    apart = np.asarray(sources["separation_arcsec"], float)[:, None]
    apart = apart * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    fainter = np.asarray(sources["flux_share"], float)
    double = np.flatnonzero(np.asarray(sources["components"]) == 2)
    number = np.arange(len(sources))
    # The centre of light stays where the source is.
    return (
        np.concatenate([number, double]),
        np.concatenate([-fainter[:, None] * apart, (1.0 - fainter[double, None]) * apart[double]]),
        np.concatenate([1.0 - fainter, fainter[double]]),
    )
