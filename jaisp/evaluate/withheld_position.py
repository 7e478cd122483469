"""What each survey is worth to the position of sources that all surveys see together."""

from collections.abc import Callable, Mapping

import numpy as np

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.injected import TOKENS, Features, InjectedSky
from jaisp.evaluate.position import BOTH, UNDERPOWERED, fit_readouts, together_of
from jaisp.evaluate.withheld import Bands, Figure, Measured

CONTROLS = ("random", "shuffled", "constant")


def position_figures(
    sky: InjectedSky, seen: Mapping[str, Features], settings: EvaluateConfig
) -> list[Figure]:
    """Error of the position read off the tokens of all surveys, a figure a S/N, in mas.

    seen: from `position.seen_of` that sky. Readouts are fitted anew on the tokens that are left.
    """
    surveys = tuple(sorted(seen))
    known: dict[tuple[str, ...], dict[float, Measured]] = {}

    def measure(snr: float) -> Callable[[Bands], Measured | None]:
        def of(bands: Bands) -> Measured | None:
            # Tokens of fewer bands are not at hand; only whole surveys are taken away.
            if any(bands[s] != sky.store.bands(s) for s in bands):
                return None
            left = tuple(s for s in surveys if s in bands)
            if left not in known:
                known[left] = _by_snr(sky, {s: seen[s] for s in left}, settings)
            return known[left].get(snr)

        return of

    levels = np.unique(sky.column("snr")[np.asarray(sky.sources["kind"]) == BOTH])
    return [
        Figure(
            f"position median_mas S/N {snr:g}",
            surveys,
            measure(float(snr)),
            "scatter",
            whole=True,
            enough=UNDERPOWERED,
        )
        for snr in levels
    ]


def _by_snr(
    sky: InjectedSky, seen: Mapping[str, Features], settings: EvaluateConfig
) -> dict[float, Measured]:
    together = together_of(sky, seen, settings)
    if together is None:
        return {}
    fitted = fit_readouts({BOTH: together}, settings, (TOKENS,)).get((BOTH, TOKENS))
    if fitted is None:
        return {}
    test = together.part(together.is_test & np.isin(together.snr, list(fitted.constant)))
    errors = fitted.errors(test)
    return {
        float(snr): Measured(
            test.names[test.snr == snr],
            errors["model"][test.snr == snr],
            {name: errors[name][test.snr == snr] for name in CONTROLS if name in errors},
        )
        for snr in np.unique(test.snr)
    }
