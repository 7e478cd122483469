"""Counts of detected sources."""

import numpy as np
import torch

from jaisp.model.inputs import network_inputs
from jaisp.train.detect import count_sources

N, TOKENS = 8, 12
PLACES = [(20.0, 20.0), (20.0, 70.0), (61.0, 13.0), (50.0, 51.0), (54.0, 53.5)]  # row, column


def inputs_of(amplitudes: list[float], noises: list[float]) -> torch.Tensor:
    """A band each: sources of this peak at PLACES on noise."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[: N * TOKENS, : N * TOKENS]
    light = sum(np.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * 1.3**2)) for y, x in PLACES)
    flux = [
        a * light + rng.normal(0, s, light.shape) for a, s in zip(amplitudes, noises, strict=True)
    ]
    planes = torch.from_numpy(np.array(flux, np.float32))[None]
    noise = torch.tensor(noises)[None, :, None, None].expand_as(planes)
    return network_inputs(planes, noise, None, torch.tensor(noises))[0]


def expected() -> np.ndarray:
    counts = np.zeros((TOKENS, TOKENS), int)
    for y, x in PLACES:
        counts[int((y + 0.5) / N), int((x + 0.5) / N)] += 1
    return counts


def test_sources_are_counted_on_their_tokens():
    assert expected().max() == 2
    inputs = inputs_of([60.0], [2.0])
    np.testing.assert_array_equal(count_sources(inputs, torch.tensor([0.5]), N), expected())


def test_bands_add_up_by_inverse_variance():
    # Too faint in each of four bands; a fifth is mere noise and must not drown them.
    noises = [2.0, 2.0, 2.0, 2.0, 200.0]
    inputs = inputs_of([5.5] * 5, noises)
    weight = 1 / torch.tensor(noises)
    together = count_sources(inputs, weight, N)
    alone = count_sources(inputs[:1], weight[:1], N)
    truth = expected() > 0
    assert (together > 0)[truth].sum() > (alone > 0)[truth].sum()
    assert (together > 0)[truth].all()


def test_a_sky_without_sources_or_without_pixels_has_none():
    blank = inputs_of([0.0], [2.0])
    assert count_sources(blank, torch.tensor([0.5]), N).sum() <= 2
    blank[:] = 0
    assert count_sources(blank, torch.tensor([0.5]), N).sum() == 0
