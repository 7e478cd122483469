"""Ranking the right token among all candidates: the one code path of model and controls."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

SCOPES = tuple(product(("source", "sky"), ("field", "patch")))
BLOCK = 128


@dataclass(frozen=True)
class Ranks:
    """How each query fared among its candidates.

    rank: candidates at least as similar as the right one, itself not counted, so that ties count
    against. within: the best candidate is the right place or touches it. gap: similarity of the
    right pair less the mean over wrong pairs, NaN without one. candidates: how many, with the
    right one.
    """

    rank: Int[np.ndarray, " query"]
    within: Bool[np.ndarray, " query"]
    gap: Float[np.ndarray, " query"]
    candidates: Int[np.ndarray, " query"]


def deviations(
    tokens: Float[np.ndarray, "*place dimension"], mean: Float[np.ndarray, "*any dimension"]
) -> Float[np.ndarray, "*place dimension"]:
    """Tokens less `mean`, one or one a token; zero where the difference is only rounding."""
    mean = mean.astype(np.float32)
    difference = tokens - mean
    floor = 1e-5 * np.linalg.norm(mean, axis=-1) + 1e-30
    difference[np.linalg.norm(difference, axis=-1) <= floor] = 0
    return difference.astype(np.float32, copy=False)


def directions(
    tokens: Float[np.ndarray, "*place dimension"],
) -> Float[np.ndarray, "*place dimension"]:
    """Vectors of length one; a vector of zeros stays one."""
    length = np.linalg.norm(tokens, axis=-1, keepdims=True)
    return (tokens / np.where(length > 0, length, 1)).astype(np.float32, copy=False)


def search(
    query: Float[np.ndarray, "query dimension"],
    target: Float[np.ndarray, "patch row column dimension"],
    valid: Bool[np.ndarray, "patch row column"],
    right: Int[np.ndarray, " query"],
    sources: Int[np.ndarray, " source"],
    window_tokens: int,
) -> dict[tuple[str, str], Ranks]:
    """Rank the right target token of each query by cosine, among the candidates of each scope.

    query, target: of length one. right: each query's place among the flattened target tokens;
    sources: all places that hold a source, these included. Scope (`source`, …) has the sources as
    candidates, (`sky`, …) every valid token; (…, `patch`) only those within `window_tokens` of
    the right place, in rows and in columns.
    """
    places = np.flatnonzero(valid)
    tokens = target.reshape(-1, target.shape[-1])[places]
    number = np.full(valid.size, -1)
    number[places] = np.arange(len(places))
    holds_source = np.isin(np.arange(valid.size), sources)
    among = {"sky": np.arange(len(places)), "source": np.flatnonzero(holds_source[places])}
    sums = {kind: tokens[own].sum(axis=0, dtype=np.float64) for kind, own in among.items()}
    steps, touches = _window(window_tokens)

    found: dict[tuple[str, str], list[Ranks]] = {scope: [] for scope in SCOPES}
    for start in range(0, len(query), BLOCK):
        block = slice(start, start + BLOCK)
        similarity = _products(query[block], tokens)
        own = np.take_along_axis(similarity, number[right[block], None], axis=1)
        near = _places_near(right[block], valid.shape, steps)
        near_similarity = np.take_along_axis(similarity, number[near], axis=1)
        for kind in ("source", "sky"):
            is_candidate = (near >= 0) & (valid.ravel() if kind == "sky" else holds_source)[near]
            close = np.where(is_candidate, near_similarity, -np.inf)
            far = similarity if kind == "sky" else similarity[:, among[kind]]
            # As similar as the best of those that touch the right place, itself among them.
            best = close[:, touches].max(axis=1, keepdims=True)
            touching = np.count_nonzero(close[:, touches] >= best, axis=1)
            for scope, candidates, count, total in (
                ("field", far, np.full(len(own), far.shape[1]), query[block] @ sums[kind]),
                ("patch", close, is_candidate.sum(axis=1), np.where(is_candidate, close, 0).sum(1)),
            ):
                found[kind, scope].append(
                    Ranks(
                        rank=np.count_nonzero(candidates >= own, axis=1) - 1,
                        within=np.count_nonzero(candidates >= best, axis=1) == touching,
                        gap=_gap(own[:, 0], total, count),
                        candidates=count,
                    )
                )
    return {scope: _joined(parts) for scope, parts in found.items()}


def _gap(
    own: Float[np.ndarray, " query"],
    total: Float[np.ndarray, " query"],
    count: Int[np.ndarray, " query"],
) -> Float[np.ndarray, " query"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 1, own - (total - own) / (count - 1), np.nan)


def _products(
    query: Float[np.ndarray, "query dimension"], tokens: Float[np.ndarray, "token dimension"]
) -> Float[np.ndarray, "query token"]:
    # Of finite numbers, a product of one row by five once raised the flag `invalid`: probably of
    # what lay beyond the matrix in a vector register of BLAS.
    with np.errstate(invalid="ignore"):
        return query @ tokens.T


def _window(reach: int) -> tuple[Int[np.ndarray, "step 2"], Bool[np.ndarray, " step"]]:
    """Steps in row and column within `reach`, and which of them touch the place itself."""
    axis = np.arange(-reach, reach + 1)
    steps = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return steps, np.asarray((np.abs(steps) <= 1).all(axis=1))


def _places_near(
    right: Int[np.ndarray, " query"], shape: tuple[int, ...], steps: Int[np.ndarray, "step 2"]
) -> Int[np.ndarray, "query step"]:
    """Places some steps from each right one; −1 beyond the patch."""
    patch, row, column = np.unravel_index(right, shape)
    rows, columns = row[:, None] + steps[:, 0], column[:, None] + steps[:, 1]
    inside = (rows >= 0) & (rows < shape[1]) & (columns >= 0) & (columns < shape[2])
    places = (patch[:, None] * shape[1] + rows) * shape[2] + columns
    return np.where(inside, places, -1)


def _joined(parts: list[Ranks]) -> Ranks:
    return Ranks(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("rank", "within", "gap", "candidates")
        )
    )
