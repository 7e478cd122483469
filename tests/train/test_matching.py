"""Added sources are among the pairs of two surveys that share them, and of no others."""

import pytest
import torch

from jaisp.train.implants import Implanted
from jaisp.train.matching import Matching, Sources
from jaisp.train.weight import token_weight

PLACES = 9


def sources(level, snr, teacher=False):
    """Two sources in windows of 4 × 4 tokens; tokens of three dimensions, all of one value."""
    implanted = Implanted(
        torch.zeros(2), torch.ones(2, 2, dtype=torch.long), torch.zeros(2, 2), torch.ones(2),
        torch.full((2, 4, 4), snr),
    )  # fmt: skip
    tokens = torch.full((2, PLACES, 3), level)
    return Sources(implanted, tokens, 10 * tokens if teacher else None)


def pairs(teacher=False):
    tokens = torch.zeros(5, 3)
    return Matching(tokens, tokens + 1, torch.ones(5), [tokens, tokens] if teacher else None, (5,))


@pytest.mark.parametrize("teacher", [False, True])
def test_sources_of_both_surveys_are_pairs_like_others(teacher):
    own = {"rubin": sources(2.0, 5.0, teacher), "euclid": sources(3.0, 50.0, teacher)}
    found = pairs(teacher).with_sources(("euclid", "rubin"), own, sky_weight=0.02)
    assert len(found.first) == len(found.second) == len(found.weight) == 5 + 2 * PLACES
    assert (found.first[5:] == 3).all()
    assert (found.second[5:] == 2).all()
    assert found.groups == (5, 2 * PLACES)
    # By the survey that sees them worse.
    expected = token_weight(torch.tensor([5.0]), torch.tensor([50.0]), 0.02)
    torch.testing.assert_close(found.weight[5:], expected.expand(2 * PLACES))
    if teacher:
        assert [float(target[-1, 0]) for target in found.targets] == [30, 20]
    else:
        assert found.targets is None


@pytest.mark.parametrize("surveys", [("rubin", "rubin"), ("rubin", "hst")])
def test_pairs_of_one_survey_or_of_one_without_sources_stay_as_they_are(surveys):
    own = {"rubin": sources(2.0, 5.0), "euclid": sources(3.0, 50.0)}
    given = pairs()
    assert given.with_sources(surveys, own, sky_weight=0.02) is given
