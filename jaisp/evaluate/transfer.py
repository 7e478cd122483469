"""Does what was fitted at home hold on another field, of other seeing and depth?

Nothing is trained or fitted there: not the encoder, not the readouts. A figure is set against what
the other field's own pixels allow, and against the same at home. docs/ruler.md defines every
figure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import limits
from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.position import (
    UNDERPOWERED,
    Asked,
    Fitted,
    asked_of,
    figures,
    fit_readouts,
    seen_of,
)
from jaisp.evaluate.scatter import drawn_median, scatter
from jaisp.evaluate.scene import Encoder
from jaisp.evaluate.statistic import drawn_figures, draws

CONTROLS = ("random", "blank", "shuffled", "constant")


def transfer(
    home: InjectedSky,
    away: InjectedSky,
    encoders: Mapping[str, Encoder],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Rows of the group `transfer` for positions.

    home, away: skies of injected point sources; encoders: `model` and the controls `random` and
    `blank`. Who has read the home sky already calls `position_transfer` with what it found.
    """
    at_home, there = (
        asked_of(sky, seen_of(sky, encoders, settings), settings) for sky in (home, away)
    )
    return position_transfer(fit_readouts(at_home, settings), at_home, there, settings)


def position_transfer(
    fitted: Fitted,
    home: Mapping[str, Asked],
    away: Mapping[str, Asked],
    settings: EvaluateConfig,
) -> list[dict[str, Any]]:
    """A row a survey, readout and S/N: readouts fitted at home, on all sources away.

    `ratio` is the error over the bound away, by the error over the bound on the home sky's test
    sources: 1 where the readouts lose nothing.
    """
    rows = []
    for (survey, readout), readouts in fitted.items():
        if survey not in away:
            continue
        at_home, sources = home[survey].part(home[survey].is_test), away[survey]
        for snr in readouts.constant:
            near, far = at_home.part(at_home.snr == snr), sources.part(sources.snr == snr)
            if not len(near.snr) or not len(far.snr):
                continue
            near_errors, far_errors = readouts.errors(near), readouts.errors(far)
            n = len(far.snr)
            rows.append(
                {
                    "figure": "position",
                    "survey": survey,
                    "snr": float(snr),
                    "readout": readout,
                    "n": n,
                    **_relative(figures(far, far_errors, settings)),
                    **_of_home(_relative(figures(near, near_errors, settings)), len(near.snr)),
                    **_ratio(near, near_errors["model"], far, far_errors["model"], settings),
                    "underpowered": n < UNDERPOWERED,
                    "field": far.field,
                    "home": near.field,
                    "interval_unit": far.interval_unit,
                }
            )
    return rows


def _relative(row: dict[str, Any]) -> dict[str, Any]:
    """The same figures, those of everyone over the bound beside them."""
    bound = row["bound_mas"]
    over = {
        f"{name}_over_bound": None if row[f"{name}_mas"] is None else row[f"{name}_mas"] / bound
        for name in (*CONTROLS, "centroid", "psf_fit")
    }
    interval = {f"over_bound_{end}": row[f"median_mas_{end}"] / bound for end in ("low", "high")}
    return row | interval | over


def _of_home(row: Mapping[str, Any], n: int) -> dict[str, Any]:
    kept = ("median_mas", "bound_mas", "over_bound", "over_bound_low", "over_bound_high")
    return {f"home_{name}": row[name] for name in kept} | {"home_n": n}


def _ratio(
    near: Asked,
    near_errors: Float[np.ndarray, "near 2"],
    far: Asked,
    far_errors: Float[np.ndarray, "far 2"],
    settings: EvaluateConfig,
) -> dict[str, float | None]:
    """Error over bound away by that at home; both skies are resampled, each for itself."""

    def over_bound(asked: Asked, errors: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
        unit = np.unique(asked.unit, return_inverse=True)[1]
        drawn = draws(unit, settings.resamples, seed)
        bound = drawn_median(asked.bound, unit, drawn)
        own = scatter(errors.ravel()) / float(np.median(asked.bound))
        return own, drawn_figures("scatter", errors, unit, drawn) / bound

    (home, of_home), (away, of_away) = (
        over_bound(asked, errors, settings.seed + number)
        for number, (asked, errors) in enumerate([(near, near_errors), (far, far_errors)])
    )
    ratio: dict[str, float | None] = {"ratio": away / home, "ratio_low": None, "ratio_high": None}
    if min(len(near.snr), len(far.snr)) > 1:
        ratio["ratio_low"], ratio["ratio_high"] = limits(of_away / of_home)
    return ratio


def photometry_transfer(
    home: Sequence[Mapping[str, Any]], away: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of the group `transfer` for photometry.

    Parameters
    ----------
    home, away: rows of the group `photometry`, from probes fitted at home, read on the home field's
        test sources and on the other field.
    keys: the columns that tell which row of one belongs to which of the other.

    `over_aperture` is the tokens' scatter by that of aperture fluxes, whose regression was fitted
    at home likewise; `ratio` compares it with the same at home.
    """
    known = {tuple(row[key] for key in keys): row for row in home}
    rows = []
    for row in away:
        own = known.get(tuple(row[key] for key in keys))
        if own is None:
            continue
        over, home_over = _over_aperture(row), _over_aperture(own)
        rows.append(
            {
                "figure": "photometry",
                **row,
                "over_aperture": over,
                "home_n": own["n"],
                "home_r2": own["r2"],
                "home_scatter": own["scatter"],
                "home_aperture_scatter": own["aperture_scatter"],
                "home_over_aperture": home_over,
                "ratio": None if over is None or home_over is None else over / home_over,
            }
        )
    return rows


def _over_aperture(row: Mapping[str, Any]) -> float | None:
    scatter_of_tokens, of_apertures = row["scatter"], row["aperture_scatter"]
    if scatter_of_tokens is None or not of_apertures:
        return None
    return float(scatter_of_tokens / of_apertures)
