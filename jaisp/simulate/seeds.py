"""Random numbers that depend on the config's seed and on what they are for, nothing else."""

import hashlib

import numpy as np


def generator(seed: int, *purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, the same in whatever order they are asked for."""
    digest = hashlib.sha256("/".join(purpose).encode()).digest()
    entropy = [seed, int.from_bytes(digest[:16], "little")]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
