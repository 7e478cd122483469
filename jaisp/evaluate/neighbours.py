"""Do two surveys' tokens have the same neighbours? Mutual k-nearest neighbours."""

import numpy as np
from jaxtyping import Float, Int

NEIGHBOURS = 10


def shared_neighbours(
    first: Float[np.ndarray, "source dimension"],
    second: Float[np.ndarray, "source other"],
    patch: Int[np.ndarray, " source"] | None = None,
    count: int = NEIGHBOURS,
) -> Float[np.ndarray, " source"]:
    """Of each source, the share of its `count` nearest sources in one survey that are among those
    in the other (Huh et al. 2024, ICML, arXiv:2405.07987, appendix A).

    Tokens of length one, the same sources in the same order; unlike retrieval it asks for no
    common frame. patch: neighbours are sought on other patches only, for tokens that lie side by
    side have seen the same pixels. NaN for a source with less than twice `count` to choose from.
    """
    patch = np.arange(len(first)) if patch is None else patch
    others = len(patch) - (patch[:, None] == patch).sum(axis=1)
    if not (others >= 2 * count).any():
        return np.full(len(patch), np.nan)
    nearest = [_nearest(tokens, patch, count, seed) for seed, tokens in enumerate((first, second))]
    shared = (nearest[0][:, :, None] == nearest[1][:, None, :]).sum(axis=(1, 2))
    return np.where(others >= 2 * count, shared / count, np.nan)


def chance_of_sharing(patch: Int[np.ndarray, " source"], count: int = NEIGHBOURS) -> float:
    """Mean of `shared_neighbours` for tokens that have nothing to do with each other."""
    others = len(patch) - (patch[:, None] == patch).sum(axis=1)
    kept = others >= 2 * count
    return float((count / others[kept]).mean()) if kept.any() else float("nan")


def _nearest(
    tokens: Float[np.ndarray, "source dimension"],
    patch: Int[np.ndarray, " source"],
    count: int,
    seed: int,
) -> Int[np.ndarray, "source count"]:
    # Tokens without a direction are all alike; the order of the sources must not become theirs.
    nowhere = ~tokens.any(axis=1)
    if nowhere.any():
        drawn = np.random.default_rng(seed).normal(size=(int(nowhere.sum()), tokens.shape[1]))
        tokens = tokens.copy()
        tokens[nowhere] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    similarity = tokens @ tokens.T
    similarity[patch[:, None] == patch] = -np.inf
    return np.argpartition(-similarity, count - 1, axis=1)[:, :count]
