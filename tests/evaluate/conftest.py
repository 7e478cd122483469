"""One published sky for all these tests."""

import pytest

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate import measure
from tests.evaluate.skies import Noise, Oracle, publish_sky, sky_config


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    """A store of 36 patches, half of them test, `wide` displaced by a known shift."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sky"))
        yield publish_sky(sky_config(), shift=SHIFT)


# Arcsec towards the west and the north, by which the sky of `wide` is displaced.
SHIFT = (0.11, -0.07)


@pytest.fixture(scope="session")
def settings():
    return EvaluateConfig(resamples=200)


@pytest.fixture(scope="session")
def oracle(sky, settings):
    """What is measured of an encoder that knows the sky, beside one that knows nothing."""
    return measure(sky, settings, (Oracle(), Noise()))


def pick(groups, tokens="source", scope="field", query="sharp"):
    """One row of the group `retrieval`."""
    (row,) = (
        row
        for row in groups["retrieval"]
        if (row["query"], row["tokens"], row["scope"]) == (query, tokens, scope)
    )
    return row
