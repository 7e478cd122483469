"""A second field beside the run's own: its sources are read by probes fitted at home."""

import numpy as np
from astropy.table import vstack
from jaxtyping import Bool

from jaisp.evaluate.injected import InjectedSky
from jaisp.evaluate.known import KnownSky
from jaisp.evaluate.seen import Seen
from jaisp.evaluate.stamps import join_stamps

AWAY = "away"


def join_skies(home: KnownSky, away: KnownSky) -> KnownSky:
    """The sources of both fields; those of the second are of split `away`."""
    here, there = home.sky.sources.copy(), away.sky.sources.copy()
    here["copy"], there["copy"], there["split"] = 0, 1, AWAY
    sources = vstack([here, there], metadata_conflicts="silent")
    sky = InjectedSky(home.sky.name, home.sky.store, sources, (away.sky.store,))
    stamps = {s: join_stamps([own, away.stamps[s]]) for s, own in home.stamps.items()}
    return KnownSky(sky, np.concatenate([home.tokens, away.tokens]), stamps)


def at_home(joined: KnownSky, seen: Seen) -> tuple[KnownSky, Seen]:
    """The run's own field alone."""
    return _part(joined, seen, np.asarray(joined.sky.sources["split"]) != AWAY)


def away_from_home(joined: KnownSky, seen: Seen) -> tuple[KnownSky, Seen]:
    """The training sky of the run's own field, and all of the second field as test sky."""
    split = np.asarray(joined.sky.sources["split"])
    known, part = _part(joined, seen, split != "test")
    table = known.sky.sources
    table["split"] = np.where(np.asarray(table["split"]) == AWAY, "test", table["split"])
    return known, part


def _part(
    known: KnownSky, seen: Seen, chosen: Bool[np.ndarray, " source"]
) -> tuple[KnownSky, Seen]:
    stamps = {s: own.part(chosen, own.bands) for s, own in known.stamps.items()}
    return KnownSky(known.sky.part(chosen), known.tokens[chosen], stamps), seen.part(chosen)
