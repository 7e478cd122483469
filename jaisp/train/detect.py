"""Where sources are detected, for `train.sampling: sources`: counts, never labels."""

import numpy as np
import sep
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

THRESHOLD = 3.0  # over the scatter of the image of S/N, after sep's small smoothing
FEWEST_PIXELS = 4
FEWEST_MESHES = 4  # of the background, along a patch


def count_sources(
    inputs: Float32[Tensor, "band 3 y x"], weight: Float32[Tensor, " band"], n: int
) -> Int64[np.ndarray, "row column"]:
    """Sources on each token of n × n pixels, detected on the sum of all bands.

    inputs: as `network_inputs` gives them. weight: 1 / typical noise of the bands, nJy⁻¹. Bands
    are added by inverse variance; the background of that sum is taken off (Bertin & Arnouts 1996,
    through `sep`).
    """
    signal, valid, depth = inputs.double().unbind(dim=1)
    inverse = valid * torch.exp(-depth) * weight[:, None, None]  # 1 / noise
    total = inverse.square().sum(dim=0).sqrt()
    image = (signal.sinh() * inverse).sum(dim=0) / torch.where(total > 0, total, 1.0)
    bad = (total == 0).numpy()
    counts = np.zeros([side // n for side in bad.shape], np.int64)
    if bad.all():
        return counts
    snr, mesh = np.ascontiguousarray(image.float().numpy()), max(bad.shape) // FEWEST_MESHES
    background = sep.Background(snr, mask=bad, bw=mesh, bh=mesh)
    sep.set_extract_pixstack(max(300_000, snr.size))
    sep.set_sub_object_limit(4096)
    found = sep.extract(
        snr - background.back(),
        THRESHOLD * max(background.globalrms, 1e-6),
        mask=bad,
        minarea=FEWEST_PIXELS,
    )
    rows, columns = (np.floor((found[axis] + 0.5) / n).astype(int) for axis in ("y", "x"))
    last = np.array(counts.shape)[:, None] - 1
    np.add.at(counts, tuple(np.clip(np.stack([rows, columns]), 0, last)), 1)
    return counts
