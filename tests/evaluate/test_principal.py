"""Leading principal components."""

import numpy as np
import pytest

from jaisp.evaluate.principal import PrincipalComponents


@pytest.mark.parametrize("shape", [(400, 60), (60, 400)])
def test_components_are_those_of_the_singular_value_decomposition(shape):
    rng = np.random.default_rng(1)
    few = rng.normal(size=(shape[0], 8)) * 2.0 ** -np.arange(8)
    values = (few @ rng.normal(size=(8, shape[1])) + 5).astype(np.float32)
    values += 1e-4 * rng.normal(size=shape).astype(np.float32)
    found = PrincipalComponents.fit(values, 6, iterations=3, seed=1)
    left, size, right = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    assert found.count == 6
    np.testing.assert_allclose(np.abs((found.directions * right[:6]).sum(axis=1)), 1, atol=1e-4)
    spread = np.abs(found.transform(values)) - np.abs(left[:, :6] * size[:6])
    assert np.abs(spread).max() < 1e-2 * size[5]


def test_directions_are_of_length_one_and_known_up_to_nothing():
    values = np.random.default_rng(2).normal(size=(50, 20))
    first, second = (PrincipalComponents.fit(values, 20, 2, seed) for seed in (1, 2))
    np.testing.assert_allclose(first.directions @ first.directions.T, np.eye(20), atol=1e-9)
    # All of as many directions as there are: the projection holds nothing back.
    np.testing.assert_allclose(first.directions, second.directions, atol=1e-6)
