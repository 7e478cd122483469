"""Ranking the right token among all candidates: the one code path of model and controls."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

SCOPES = tuple(product(("source", "sky"), ("field", "patch")))
BLOCK = 256


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


def directions(
    tokens: Float[np.ndarray, "*place dimension"], mean: Float[np.ndarray, " dimension"]
) -> Float[np.ndarray, "*place dimension"]:
    """Tokens less `mean`, of length one; zero where the difference is only rounding."""
    difference = tokens - mean.astype(np.float32)
    length = np.linalg.norm(difference, axis=-1, keepdims=True)
    floor = 1e-5 * float(np.linalg.norm(mean)) + 1e-30
    return np.where(length > floor, difference / np.maximum(length, floor), 0).astype(np.float32)


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
    shape = valid.shape
    flat = target.reshape(-1, target.shape[-1])
    windows = _windows(right, shape, window_tokens)
    candidates = {
        ("source", "field"): np.unique(sources),
        ("source", "patch"): np.where(np.isin(windows, sources), windows, -1),
        ("sky", "field"): np.arange(len(flat)),
        ("sky", "patch"): windows,
    }
    found: dict[tuple[str, str], list[Ranks]] = {scope: [] for scope in SCOPES}
    for start in range(0, len(query), BLOCK):
        block = slice(start, start + BLOCK)
        similarity = query[block] @ flat.T
        similarity[:, ~valid.ravel()] = -np.inf
        for scope, places in candidates.items():
            of_block = places if places.ndim == 1 else places[block]
            found[scope].append(_rank(similarity, of_block, right[block], shape))
    return {scope: _joined(parts) for scope, parts in found.items()}


def _windows(
    right: Int[np.ndarray, " query"], shape: tuple[int, ...], reach: int
) -> Int[np.ndarray, "query window"]:
    """Places within `reach` of each right one; −1 beyond the crop."""
    patch, row, column = np.unravel_index(right, shape)
    step = np.arange(-reach, reach + 1)
    rows, columns = (axis.ravel() for axis in np.meshgrid(step, step, indexing="ij"))
    rows, columns = row[:, None] + rows, column[:, None] + columns
    inside = (rows >= 0) & (rows < shape[1]) & (columns >= 0) & (columns < shape[2])
    places = (patch[:, None] * shape[1] + rows) * shape[2] + columns
    return np.where(inside, places, -1)


def _rank(
    similarity: Float[np.ndarray, "query token"],
    places: Int[np.ndarray, "*query candidate"],
    right: Int[np.ndarray, " query"],
    shape: tuple[int, ...],
) -> Ranks:
    each = np.arange(len(similarity))
    own = similarity[each, right]
    if places.ndim == 1:
        among = similarity if places.size == similarity.shape[1] else similarity[:, places]
    else:
        among = np.where(places >= 0, np.take_along_axis(similarity, places, axis=1), -np.inf)
    finite = np.isfinite(among)
    count = finite.sum(axis=1)
    total = np.where(finite, among, 0).sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.where(count > 1, own - (total - own) / (count - 1), np.nan)
    best = np.broadcast_to(places, among.shape)[each, among.argmax(axis=1)]
    apart = np.subtract(np.unravel_index(best, shape), np.unravel_index(right, shape))
    return Ranks(
        rank=(among >= own[:, None]).sum(axis=1) - 1,
        within=(apart[0] == 0) & (np.abs(apart[1:]) <= 1).all(axis=0),
        gap=gap,
        candidates=count,
    )


def _joined(parts: list[Ranks]) -> Ranks:
    return Ranks(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("rank", "within", "gap", "candidates")
        )
    )
