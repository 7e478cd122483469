"""Separable filters of images, as products with banded matrices.

Filters of tens of pixels on single planes are what convolution libraries do worst: on a CPU a
block of rows times a band of weights takes a third of the time.
"""

from torch import Tensor
from torch.nn import functional

BLOCK = 32  # outputs that share a product


def smoothed(planes: Tensor, filters: Tensor) -> Tensor:
    """Every plane under every filter along y and then x, zeros beyond the edges.

    planes: [plane, y, x]. filters: [filter, 2 · reach + 1], symmetric. Returns [plane, filter, y,
    x].
    """
    count, height, width = planes.shape
    reach = filters.shape[1] // 2
    band = _band(filters)
    padded = functional.pad(planes, (reach, reach - width % -BLOCK, reach, reach - height % -BLOCK))
    rows = padded.unfold(1, BLOCK + 2 * reach, BLOCK)  # plane, block, x, rows of it
    along_y = (rows @ band.flatten(0, 1).T).unflatten(-1, (len(filters), BLOCK))
    columns = along_y.permute(3, 0, 1, 4, 2).flatten(1, 3).unfold(2, BLOCK + 2 * reach, BLOCK)
    both = columns.flatten(1, 2) @ band.transpose(1, 2)
    whole = both.view(len(filters), count, rows.shape[1] * BLOCK, -1)
    return whole[:, :, :height, :width].transpose(0, 1)


def _band(filters: Tensor) -> Tensor:
    """Weights of a block's outputs on the pixels around it, [filter, output, pixel]: each output's
    are those of the one before, a pixel on."""
    padded = functional.pad(filters, (BLOCK - 1, BLOCK - 1))
    return padded.unfold(1, BLOCK + filters.shape[1] - 1, 1).flip(1).contiguous()
