"""Sky around what is measured reaches as far as the encoders see, or as far as the config says."""

import numpy as np
import pytest

from jaisp.config.evaluate import EvaluateConfig
from jaisp.errors import UserError
from jaisp.evaluate.edge import with_edge
from jaisp.evaluate.found import Found
from jaisp.evaluate.stage import measure
from jaisp.model import Architecture, Model, SurveyPixels
from tests.evaluate.skies import Noise, Oracle

TOKEN = 1.6


class Seeing(Noise):
    def __init__(self, arcsec):
        super().__init__()
        self.receptive_field_arcsec = arcsec


@pytest.mark.parametrize(("arcsec", "tokens"), [(0.0, 0), (0.1, 1), (3 * TOKEN, 3), (15.4, 10)])
def test_the_edge_is_what_the_model_sees_rounded_up(arcsec, tokens):
    assert with_edge(EvaluateConfig(), [Seeing(arcsec)], TOKEN).edge == tokens


def test_a_sum_of_pixels_that_is_whole_tokens_is_not_one_more():
    assert with_edge(EvaluateConfig(), [Seeing(sum([0.1] * 48))], TOKEN).edge == 3


def test_of_several_encoders_the_largest_counts():
    assert with_edge(EvaluateConfig(), [Seeing(2.0), Seeing(9.0)], TOKEN).edge == 6


def test_a_number_stays():
    settings = EvaluateConfig(edge_tokens=0)
    assert with_edge(settings, [Seeing(9.0)], TOKEN).edge == 0
    assert with_edge(settings, [Oracle()], TOKEN).edge == 0


def test_an_encoder_that_does_not_say_needs_a_number():
    with pytest.raises(UserError, match=r"evaluate\.edge_tokens"):
        with_edge(EvaluateConfig(), [Seeing(9.0), Oracle()], TOKEN)


def test_without_encoders_nothing_is_asked():
    assert with_edge(EvaluateConfig(), [], TOKEN).edge_tokens is None


def test_a_model_says_how_far_it_sees():
    survey = SurveyPixels(bands=["r"], grid_arcsec=0.2, pixels_per_token=8)
    model = Model(
        Architecture(surveys={"rubin": survey}, token_arcsec=TOKEN, dimensions=4, size="tiny")
    )
    edge = with_edge(EvaluateConfig(), [model], TOKEN).edge
    assert (edge - 1) * TOKEN < model.receptive_field_arcsec <= edge * TOKEN + 1e-6


def test_all_parts_are_measured_with_the_edge(sky, monkeypatch):
    known = []

    def noted(bench):
        known.append(bench.settings.edge)
        return Found()

    monkeypatch.setattr("jaisp.evaluate.stage.MEASURES", {"alignment": noted})
    measure(sky, EvaluateConfig(), (Seeing(5.0), Seeing(7.0)))
    assert known == [int(np.ceil(7.0 / sky.token_arcsec))]
