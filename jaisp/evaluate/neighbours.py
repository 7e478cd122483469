"""Do two surveys' tokens have the same neighbours? Mutual k-nearest neighbours."""

import numpy as np
from jaxtyping import Float, Int

NEIGHBOURS = 10


def shared_neighbours(
    first: Float[np.ndarray, "source dimension"],
    second: Float[np.ndarray, "source dimension"],
    count: int = NEIGHBOURS,
) -> float:
    """Mean share of each source's `count` nearest sources in one survey that are among those in
    the other (Huh et al. 2024, ICML, arXiv:2405.07987, appendix A).

    Tokens of length one, the same sources in the same order; unlike retrieval it asks for no
    common frame. Chance is count / (sources − 1). NaN with too few sources for a choice.
    """
    if len(first) < 2 * count:
        return float("nan")
    a, b = _nearest(first, count), _nearest(second, count)
    shared = [len(np.intersect1d(x, y, assume_unique=True)) for x, y in zip(a, b, strict=True)]
    return float(np.mean(shared) / count)


def _nearest(
    tokens: Float[np.ndarray, "source dimension"], count: int
) -> Int[np.ndarray, "source count"]:
    similarity = tokens @ tokens.T
    np.fill_diagonal(similarity, -np.inf)
    # Equal tokens have no order of their own; that of the sources must not become one.
    similarity += np.random.default_rng(0).uniform(0, 1e-7, similarity.shape).astype(np.float32)
    return np.argpartition(-similarity, count - 1, axis=1)[:, :count]
