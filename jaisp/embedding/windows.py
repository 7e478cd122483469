"""A model over an image of any size, in windows that leave no seam."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32

from jaisp.embedding.mosaic import Planes, covered_squares
from jaisp.model import Model

# read(y, x, height, width), in tokens; it may reach over the edges, where all is missing.
Read = Callable[[int, int, int, int], Planes]


class Window(NamedTuple):
    """A square of an image, read with its margin; `covered` is of the square alone."""

    x: int
    planes: Planes
    covered: Bool[np.ndarray, "row column"]


def margin_tokens(model: Model) -> int:
    """Tokens to read on each side of a window, so that what lies farther off changes nothing."""
    return math.ceil(model.receptive_field_arcsec / model.config.token_arcsec - 1e-9)


def embed_rows(
    model: Model,
    read: Read,
    shape: tuple[int, int],
    *,
    survey: str,
    bands: Sequence[str],
    window: int = 32,
    batch: int = 2,
) -> Iterator[tuple[int, Float32[np.ndarray, "dimension row column"]]]:
    """Embed an image of `shape` tokens and yield it by rows of windows.

    Every window is read with a margin as wide as the model's receptive field, beyond the image's
    edges too, where everything is missing. So each token comes from the same pixels whatever
    the windows are, and no more than one row of windows is in memory.

    Parameters
    ----------
    read: gives the pixels of a rectangle of tokens.
    survey, bands: the encoder, and the bands of the planes that `read` gives.
    window: side of a window without its margin, in tokens.
    batch: how many windows are encoded together.

    Yields the first token row of each row of windows, and its tokens, NaN where uncovered.
    """
    height, width = shape
    margin = margin_tokens(model)
    n = model.config.surveys[survey].pixels_per_token
    side = window + 2 * margin
    for y in range(0, height, window):
        rows = min(window, height - y)
        strip = np.full((model.config.dimensions, rows, width), np.nan, np.float32)
        pending: list[Window] = []
        for x in range(0, width, window):
            planes = read(y - margin, x - margin, side, side)
            inner = slice(margin, side - margin)
            covered = covered_squares(planes, n)[inner, inner]
            if covered.any():
                pending.append(Window(x, planes, covered))
            if len(pending) == batch:
                _fill(strip, model, pending, margin, survey, bands)
                pending = []
        if pending:
            _fill(strip, model, pending, margin, survey, bands)
        yield y, strip


def _fill(
    strip: Float32[np.ndarray, "dimension row column"],
    model: Model,
    windows: Sequence[Window],
    margin: int,
    survey: str,
    bands: Sequence[str],
) -> None:
    """Encode some windows of one row and put their tokens into `strip`."""
    _, rows, width = strip.shape
    flux, noise, mask = (
        np.stack([getattr(window.planes, name) for window in windows])
        for name in ("flux", "noise", "mask")
    )
    # TF32 convolutions differ by 1e-3 from one window to the next: more than a seam may show.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        tokens = model.encode(flux, noise, mask, survey=survey, bands=list(bands))
    for window, encoded in zip(windows, tokens.float().cpu().numpy(), strict=True):
        columns = min(window.covered.shape[1], width - window.x)
        square = encoded[:, margin : margin + rows, margin : margin + columns]
        covered = window.covered[:rows, :columns]
        strip[:, :, window.x : window.x + columns] = np.where(covered, square, np.nan)
