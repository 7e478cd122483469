"""A model over an image of any size, in windows that leave no seam."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
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
    workers: int = 1,
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
    workers: how many such batches are encoded at once, each in a thread of its own.

    Yields the first token row of each row of windows, and its tokens, NaN where uncovered.
    """
    height, width = shape
    margin = margin_tokens(model)
    n = model.config.surveys[survey].pixels_per_token
    side = window + 2 * margin
    inner = slice(margin, side - margin)

    def covered_windows(y: int) -> Iterator[Window]:
        for x in range(0, width, window):
            planes = read(y - margin, x - margin, side, side)
            covered = covered_squares(planes, n)[inner, inner]
            if covered.any():
                yield Window(x, planes, covered)

    def encode(windows: Sequence[Window]) -> Float32[np.ndarray, "window dimension row column"]:
        return _encode(model, windows, survey, bands)[..., inner, inner]

    with ThreadPoolExecutor(workers) as pool:
        for y in range(0, height, window):
            rows = min(window, height - y)
            strip = np.full((model.config.dimensions, rows, width), np.nan, np.float32)
            under_way: deque[tuple[tuple[Window, ...], Future]] = deque()
            found = covered_windows(y)
            while windows := tuple(islice(found, batch)):
                under_way.append((windows, pool.submit(encode, windows)))
                # The next ones are read meanwhile; more than that would fill memory.
                if len(under_way) > workers:
                    _fill(strip, *under_way.popleft())
            while under_way:
                _fill(strip, *under_way.popleft())
            yield y, strip


def _encode(
    model: Model, windows: Sequence[Window], survey: str, bands: Sequence[str]
) -> Float32[np.ndarray, "window dimension row column"]:
    """Tokens of some windows and their margins."""
    flux, noise, mask = (
        np.stack([getattr(window.planes, name) for window in windows])
        for name in ("flux", "noise", "mask")
    )
    # TF32 convolutions differ by 1e-3 from one window to the next: more than a seam may show.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), exact if model.device.type == "cuda" else nullcontext():
        tokens = model.encode(flux, noise, mask, survey=survey, bands=list(bands))
    return tokens.float().cpu().numpy()


def _fill(
    strip: Float32[np.ndarray, "dimension row column"], windows: Sequence[Window], encoded: Future
) -> None:
    """Put the tokens of some windows of one row into `strip`."""
    _, rows, width = strip.shape
    for window, square in zip(windows, encoded.result(), strict=True):
        columns = min(window.covered.shape[1], width - window.x)
        covered = window.covered[:rows, :columns]
        tokens = np.where(covered, square[:, :rows, :columns], np.nan)
        strip[:, :, window.x : window.x + columns] = tokens
