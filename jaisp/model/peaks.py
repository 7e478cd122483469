"""Where the peaks of a map lie about each token, and what shapes they have.

Pixels are weighted so steeply that one source counts in a window, and few pixels of it; their own
centre would jump from pixel to pixel. So each pixel stands for the peak of the parabola through the
map there and on either side, and for its curvature there. Both are exact where the map is the
logarithm of a Gaussian.
"""

import torch
from torch import Tensor
from torch.nn import functional

# A pixel's step to a peak: at most so many pixels, from no flatter a parabola.
LONGEST, FLATTEST = 1.0, 0.05
# Numbers of a map in a window: y and x, two of the shape, and a width.
PLACE, SHAPE, WIDTH = 2, 2, 1


def peaks_of(
    height: Tensor, weight: Tensor, nothing: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Numbers about every token, [sample, number, row, column]: all places, then shapes, widths.

    height, weight: of maps, [sample, map, y, x]. nothing: of each map, what counts as much as all
    pixels of a window where there is no source: its place is the token's centre, its shape round.
    rows, columns: the windows of rows and of columns of tokens, times 1 and the distance from the
    token's centre, in tokens, [window, power, token, pixel].

    A place is a mean, in tokens. The shape is that of a peak log q = −(a y² + b x² − 2 c x y) / 2,
    with a, b and c means: (a − b) / (a + b) and 2 c / (a + b), which for a Gaussian are the
    differences of its second moments over their sum. The width is the logarithm of a + b in pixels,
    times −0.3.
    """
    pixels = rows.shape[3] // rows.shape[2]  # a token
    (to_y, bent_y), (to_x, bent_x) = parabola(height, 2), parabola(height, 3)
    each = [to_y / pixels, to_x / pixels, bent_y, bent_x, twist(height), torch.ones_like(height)]
    sums = _over(weight[:, :, None] * torch.stack(each, dim=2), rows[:, 0], columns[:, 0])
    total = sums[:, :, :, 5:] + nothing[:, None, None, None]
    alone = weight[:, :, None]
    down, across = _over(alone, rows[:, 1], columns[:, 0]), _over(alone, rows[:, 0], columns[:, 1])
    place = (torch.cat([down, across], dim=3) + sums[:, :, :, :2]) / total
    a, b, c = (sums[:, :, :, 2:5] / total).split(1, dim=3)
    both = (a + b).clamp(min=FLATTEST)
    shape = torch.cat([a - b, 2 * c], dim=3) / both
    found = [place, shape, -0.3 * both.log()]
    return torch.cat([numbers.flatten(1, 3) for numbers in found], dim=1)


def parabola(height: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Of the parabola through each place's height and its two neighbours' along one dimension: how
    far its peak is, one place uphill where it isn't curved; and its curvature, minus the second
    difference. Both are 0 at the ends."""
    before, middle, after = _three(height, dim)
    bent = 2 * middle - before - after
    step = ((after - before) / (2 * bent.clamp(min=FLATTEST))).clamp(-LONGEST, LONGEST)
    return _with_ends(step, dim), _with_ends(bent, dim)


def twist(height: Tensor) -> Tensor:
    """The second difference along both of the last dimensions; 0 at the ends."""
    before, _, after = _three(height, height.ndim - 2)
    (one, _, other), (same, _, opposite) = (_three(row, row.ndim - 1) for row in (before, after))
    return functional.pad((one + opposite - other - same) / 4, [1, 1, 1, 1])


def _over(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sums of planes in windows [window, token, pixel] along either axis, [sample, window, map,
    plane, row, column]."""
    # One product for all windows: planes aren't copied for each.
    across = (planes @ columns.flatten(0, 1).T).unflatten(-1, columns.shape[:2])
    return rows[:, None, None] @ across.movedim(-2, 1)


def _three(height: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    length = height.shape[dim] - 2
    return (
        height.narrow(dim, 0, length),
        height.narrow(dim, 1, length),
        height.narrow(dim, 2, length),
    )


def _with_ends(inner: Tensor, dim: int) -> Tensor:
    return functional.pad(inner, [0, 0] * (inner.ndim - 1 - dim) + [1, 1])
