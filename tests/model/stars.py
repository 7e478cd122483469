"""Stars as encoders see them."""

import numpy as np
import torch

from jaisp.model.inputs import asinh


def star(place, snr, n, grid, tokens=7, fwhm=0.7, seed=0):
    """Inputs of one band with a Gaussian at `place` (y, x in tokens from the middle token's
    centre), of that S/N under its own filter, in noise of 1 a pixel."""
    side = tokens * n
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / n - tokens / 2
    sigma = fwhm / 2.3548 / (n * grid)
    y, x = (torch.exp(-0.5 * ((axis - centre) / sigma) ** 2) for centre in place)
    profile = torch.outer(y, x)
    noise = (
        np.random.default_rng(seed).normal(size=(side, side)) if seed else np.zeros((side, side))
    )
    flux = snr * profile / profile.square().sum().sqrt() + torch.from_numpy(noise)
    valid = torch.ones(side, side)
    return torch.stack([asinh(flux).float(), valid, 0 * valid])[None, None]
