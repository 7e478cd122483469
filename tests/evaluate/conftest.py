"""One published sky for all these tests."""

import pytest

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bands import band_retrieval
from jaisp.evaluate.bench import Bench
from jaisp.evaluate.collapse import collapse
from jaisp.evaluate.known import known_sky
from jaisp.evaluate.means import mean_tokens
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.retrieval import retrieval
from jaisp.evaluate.stage import measure
from jaisp.evaluate.views import encode_sky
from jaisp.evaluate.withheld import retrieval_figures, withheld
from tests.evaluate import skies
from tests.evaluate.known_skies import FAINT, PER_ARCMIN2, SETTINGS, truth_table
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
    return EvaluateConfig(resamples=200, edge_tokens=10)


@pytest.fixture(scope="session")
def oracle(sky, settings):
    """What is measured of an encoder that knows the sky, beside one that knows nothing."""
    return measure(sky, settings, (Oracle(), Noise()))


@pytest.fixture(scope="session")
def ask(sky, settings):
    """Measures an encoder in some groups, and gives their rows and the outcomes."""
    bench = Bench(sky, settings, (Oracle(), Noise()))
    test, train, catalogues, bands = bench.test, bench.train, bench.catalogues, bench.bands

    def measured(encoder, *wanted):
        seeing = {"model": encoder, "random": Noise()}
        every = Bench(sky, settings, (encoder, seeing["random"])).every
        means = mean_tokens(sky, train, seeing, settings)
        encoded = encode_sky(sky, test, catalogues, every, settings)
        groups, outcomes = {}, Outcomes()
        if "retrieval" in wanted:
            groups["retrieval"] = retrieval(encoded, means, settings, outcomes)[0]
        if "bands" in wanted:
            known = (sky, test, train, catalogues, every, settings)
            groups["bands"] = band_retrieval(*known, outcomes)
        if "collapse" in wanted:
            groups["collapse"] = collapse(encoded, means, settings)[0]
        if "withheld" in wanted:
            figures = retrieval_figures(sky, train, encoded, means, every, settings)
            groups["withheld"] = withheld(figures, bands, settings, outcomes)
        return groups, outcomes

    return measured


def pick(groups, tokens="source", scope="field", query="sharp"):
    """One row of the group `retrieval`."""
    (row,) = (
        row
        for row in groups["retrieval"]
        if (row["query"], row["tokens"], row["scope"]) == (query, tokens, scope)
    )
    return row


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A store of many faint sources, for what is known of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("known"))
        patch.setattr(skies, "NOISE", FAINT)
        return publish_sky(sky_config(), per_arcmin2=PER_ARCMIN2)


@pytest.fixture(scope="session")
def known(store):
    """Its sources."""
    return known_sky(store, SETTINGS, truth_table(store))
