"""Ridge regression of many targets, each with the strength that predicts it best elsewhere."""

from collections.abc import Callable

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int, Shaped

from jaisp.evaluate.folds import folds

# In units of the number of sources, for features of unit variance.
STRENGTHS = 10.0 ** np.arange(-6.0, 4.01, 0.75)
COARSE = 4  # every fourth strength is tried first
FOLDS = 3
# A prior's strength doesn't depend on how many sources there are: as many as this choose it.
CHOOSING = 1500


def choose_strengths(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    seed: int,
    groups: Shaped[np.ndarray, " source"] | None,
) -> Int[np.ndarray, " target"]:
    """Of each target, which of STRENGTHS predicts it best where it isn't fitted."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(x))[:CHOOSING])
    fold = folds(len(drawn), FOLDS, seed, None if groups is None else groups[drawn])
    return _best(x[drawn], y[drawn], fold, STRENGTHS * len(x))


def fit_ridge(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    strengths: Int[np.ndarray, " target"],
) -> Callable[[np.ndarray], np.ndarray]:
    """A linear map with an intercept. strengths: of each target, an index of STRENGTHS."""
    ridge = _Ridge(x, y).fit()
    weights = np.zeros((x.shape[1], y.shape[1]))
    for number in np.unique(strengths):
        own = strengths == number
        weights[:, own] = ridge.weights(STRENGTHS[number] * len(x))[:, own]
    intercept = ridge.intercept(weights)
    return lambda features: features @ weights + intercept


def _best(
    x: Float[np.ndarray, "source feature"],
    y: Float[np.ndarray, "source target"],
    fold: Int[np.ndarray, " source"],
    penalties: Float[np.ndarray, " penalty"],
) -> Int[np.ndarray, " target"]:
    """Of each target, which penalty predicts it best on the parts left out: coarse, then fine."""
    parts = [part for part in np.unique(fold) if (fold != part).sum() >= 2]
    whole = _Ridge(x, y)
    fitted = [(whole.fit(fold != part), x[fold == part], y[fold == part]) for part in parts]
    errors = np.full((len(penalties), y.shape[1]), np.inf)

    def try_all(numbers: set[int]) -> Int[np.ndarray, " target"]:
        for number in sorted(numbers):
            if np.isfinite(errors[number]).all():
                continue
            total = np.zeros(y.shape[1])
            for ridge, x_out, y_out in fitted:
                weights = ridge.weights(penalties[number])
                total += ((x_out @ weights + ridge.intercept(weights) - y_out) ** 2).sum(axis=0)
            errors[number] = total
        return errors.argmin(axis=0)

    best = try_all(set(range(0, len(penalties), COARSE)))
    step = COARSE // 2
    while step:
        around = {int(b) + s for b in best for s in (-step, step)}
        best = try_all({number for number in around if 0 <= number < len(penalties)})
        step //= 2
    return best


class _Ridge:
    """Ridge regression with an intercept, for as many strengths as are asked for, of all sources
    or of some.

    In the space of features or of sources, whichever is smaller; either way the products of
    features are taken once.
    """

    def __init__(
        self, x: Float[np.ndarray, "source feature"], y: Float[np.ndarray, "source target"]
    ) -> None:
        self._x, self._y = x, y
        self._dual = x.shape[1] > len(x)
        self._products = x @ x.T if self._dual else x.T @ x

    def fit(self, kept: Bool[np.ndarray, " source"] | None = None) -> "_Solver":
        """The regression on the sources that are kept, the fewer part of which is left out."""
        x, y, products = self._x, self._y, self._products
        if kept is not None and self._dual:
            products = products[np.ix_(kept, kept)]
        elif kept is not None:
            products = products - x[~kept].T @ x[~kept]
        if kept is not None:
            x, y = x[kept], y[kept]
        return _Solver(x, y, products, self._dual)


class _Solver:
    """Ridge regression on some sources, given the products of their features, uncentred."""

    def __init__(
        self,
        x: Float[np.ndarray, "source feature"],
        y: Float[np.ndarray, "source target"],
        products: Float[np.ndarray, "side side"],
        dual: bool,
    ) -> None:
        self._x, self._x_mean, self._y_mean = x, x.mean(axis=0), y.mean(axis=0)
        self._dual, centred = dual, y - self._y_mean
        if dual:
            row = products.mean(axis=0)
            self._gram = products - row - row[:, None] + row.mean()
            self._right = centred
        else:
            self._gram = products - len(x) * np.outer(self._x_mean, self._x_mean)
            self._right = x.T @ centred

    def weights(self, penalty: float) -> Float[np.ndarray, "feature target"]:
        """Weights of the features at one penalty on their squared sum."""
        gram = self._gram.copy(order="F")  # as LAPACK overwrites it
        gram[np.diag_indices_from(gram)] += penalty
        _, solved, failed = scipy.linalg.lapack.dposv(gram, self._right, lower=1, overwrite_a=1)
        if failed:
            raise np.linalg.LinAlgError(
                f"a ridge regression of penalty {penalty:g} has no solution"
            )
        if not self._dual:
            return solved
        return self._x.T @ solved  # uncentred: what is solved for sums to zero

    def intercept(
        self, weights: Float[np.ndarray, "feature target"]
    ) -> Float[np.ndarray, " target"]:
        """What is added to features times weights."""
        return self._y_mean - self._x_mean @ weights
