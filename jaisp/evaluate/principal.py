"""Leading principal components, by random projection (Halko et al. 2011, SIAM Review 53, 217)."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

OVERSAMPLES = 10  # directions that are sought beyond those asked for
UNSTABLE = 2  # iterations beyond which rounding would hide the weaker directions


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions of most variance, strongest first, about a mean."""

    mean: Float[np.ndarray, " feature"]
    directions: Float[np.ndarray, "component feature"]

    @classmethod
    def fit(
        cls,
        values: Float[np.ndarray, "source feature"],
        count: int,
        iterations: int,
        seed: int,
    ) -> "PrincipalComponents":
        """`count` directions, at most as many as there are sources or features.

        iterations: of the power method; the more, the better the weaker directions are known.
        """
        mean = values.mean(axis=0)
        centred = values - mean
        # From the side that has fewer numbers to project.
        wide = centred.shape[0] < centred.shape[1]
        matrix = centred.T if wide else centred
        basis = _basis(matrix, count + OVERSAMPLES, iterations, seed)
        left, _, right = scipy.linalg.svd(
            basis.T @ matrix, full_matrices=False, check_finite=False, overwrite_a=True
        )
        directions = (basis @ left).T[:count] if wide else right[:count]
        # Of a direction and its opposite, the one whose largest number is above zero.
        largest = np.abs(directions).argmax(axis=1)
        signs = np.sign(directions[np.arange(len(directions)), largest])
        return cls(mean, directions * signs[:, None])

    @property
    def count(self) -> int:
        """How many components there are."""
        return len(self.directions)

    def transform(
        self, values: Float[np.ndarray, "source feature"]
    ) -> Float[np.ndarray, "source component"]:
        """Components of any values."""
        return values @ self.directions.T - self.mean @ self.directions.T


def _basis(
    matrix: Float[np.ndarray, "row column"], count: int, iterations: int, seed: int
) -> Float[np.ndarray, "row found"]:
    """Orthonormal directions that hold most of what the columns are made of."""
    drawn = np.random.RandomState(seed).normal(size=(matrix.shape[1], count))
    found = drawn.astype(matrix.dtype, copy=False)
    for _ in range(iterations):
        found = matrix @ found
        found = matrix.T @ (_unmixed(found) if iterations > UNSTABLE else found)
        found = _unmixed(found) if iterations > UNSTABLE else found
    return scipy.linalg.qr(matrix @ found, mode="economic", check_finite=False)[0]


def _unmixed(columns: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row _"]:
    """Columns of the same span of which none outweighs the others."""
    return scipy.linalg.lu(columns, permute_l=True, check_finite=False)[0]
