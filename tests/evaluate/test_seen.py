"""What encoders say of known sources."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.evaluate.seen import features_of
from tests.evaluate import skies
from tests.evaluate.known_skies import SETTINGS


class Records:
    """Tokens of the flux on each token; remembers which bands it was shown."""

    def __init__(self):
        self.shown = set()

    def encode(self, flux, noise, mask=None, *, survey, bands):
        self.shown.add((survey, tuple(bands)))
        assert flux.shape[1] == len(bands)
        tall, wide = skies.grid_of(flux, survey)
        each = flux.shape[-1] // wide
        cells = np.nan_to_num(flux).sum(axis=1).reshape(len(flux), tall, each, wide, each)
        return cells.sum(axis=(2, 4))[:, None].astype(np.float32)


def test_bands_can_be_withheld(known):
    encoder = Records()
    shown = {"wide": ("wide", ["g", "i"]), "wide-g": ("wide", ["i"])}
    seen = features_of(known, {"model": encoder}, SETTINGS, shown)
    assert encoder.shown == {("wide", ("g", "i")), ("wide", ("i",))}
    assert seen.views == {"wide": ("wide",), "wide-g": ("wide-g",), "both": ("wide", "wide-g")}
    assert len(seen.of("wide-g", "model")) == len(known)
    assert seen.of("both", "model").shape[1] == 2 * seen.of("wide", "model").shape[1]
    flux = known.sky.column("flux_wide_i")
    met = np.isfinite(seen.of("wide", "model")).all(axis=1)
    assert met.mean() > 0.8
    assert abs(np.corrcoef(seen.of("wide", "model")[met, 0], flux[met])[0, 1]) > 0.8


def test_test_sky_has_no_say_in_the_components(known):
    """With other tokens on test sky, training sources look the same."""
    shown = {"wide": ("wide", ["g", "i"])}
    seen = features_of(known, {"model": Records()}, SETTINGS, shown).of("wide", "model")
    moved = known.tokens + np.where(known.is_test, 1, 0)[:, None]
    again = features_of(replace(known, tokens=moved), {"model": Records()}, SETTINGS, shown)
    train = ~known.is_test
    assert again.of("wide", "model")[train] == pytest.approx(seen[train], nan_ok=True)
