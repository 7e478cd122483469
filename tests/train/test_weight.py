"""What a pair of tokens counts: the poorer view decides, and a source's brightest token most."""

import numpy as np
import pytest
import torch

from jaisp.config.train import TrainConfig
from jaisp.train.pairs import Pairs
from jaisp.train.patches import Patches, measure_noise
from jaisp.train.weight import of_wings, token_weight


def test_weight_is_that_of_the_poorer_view():
    snr = torch.tensor([0.0, 5.0, 1e6])
    np.testing.assert_allclose(token_weight(snr, snr, 0.1), [0.1, 0.55, 1.0], rtol=1e-5)
    np.testing.assert_allclose(token_weight(snr, 0 * snr, 0.1), 0.1)
    np.testing.assert_array_equal(token_weight(snr, torch.full((3,), torch.nan), 0.1), 0)


def test_each_source_has_one_token_that_is_no_wing():
    snr = torch.full((1, 9, 9), 0.5)
    snr[0, 1:4, 1:4] = 30.0
    snr[0, 2, 2] = 90.0  # a bright source with its wings
    snr[0, 6, 7] = 4.0  # a faint one
    wings = of_wings(snr, torch.ones_like(snr, dtype=torch.bool))[0]
    assert (~wings).nonzero().tolist() == [[2, 2], [6, 7]]


def test_what_is_not_seen_outshines_nothing():
    snr = torch.full((1, 5, 5), 20.0)
    snr[0, 2, 2], snr[0, 2, 1] = 500.0, 80.0
    seen = torch.ones_like(snr, dtype=torch.bool)
    seen[0, 2, 2] = False
    snr[0, 4, 4] = torch.nan
    wings = of_wings(snr, seen)[0]
    assert not wings[2, 1]
    assert wings[2, 2]
    assert wings[4, 4]


@pytest.mark.parametrize("wing_weight", [0.1, 0.5])
def test_wings_of_a_batch_count_less(store, wing_weight):
    numbers = store.where("train")
    patches = Patches(store, numbers, measure_noise(store, numbers), 1.0, "read")

    def weights(share):
        pairs = Pairs(patches, TrainConfig(batch=2, crop_tokens=8, wing_weight=share))
        return pairs.show(pairs.draw(3), torch.device("cpu")).weight

    plain, less = weights(1.0), weights(wing_weight)
    share = less[plain > 0] / plain[plain > 0]
    kept = torch.isclose(share, torch.ones(()))
    assert torch.isclose(share[~kept], torch.tensor(wing_weight)).all()
    assert 0 < kept.float().mean() < 0.5
