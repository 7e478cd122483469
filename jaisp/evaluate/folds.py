"""Parts of the sky that leave one another out: no source is predicted from its neighbours."""

import numpy as np
from jaxtyping import Int, Shaped


def folds(
    count: int, number: int, seed: int, groups: Shaped[np.ndarray, " source"] | None = None
) -> Int[np.ndarray, " source"]:
    """Which of `number` parts of about the same size each source is in; a group stays whole.

    With fewer groups than parts, sources are drawn singly.
    """
    rng = np.random.default_rng(seed)
    members = np.arange(count)
    if groups is not None:
        found = np.unique(groups, return_inverse=True)[1]
        if found.max(initial=0) + 1 >= number:
            members = found
    sizes = np.bincount(members)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part, filled = np.zeros(len(sizes), int), np.zeros(number, int)
    for group in order:
        part[group] = filled.argmin()
        filled[part[group]] += sizes[group]
    return part[members]
