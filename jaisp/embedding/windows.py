"""A model over an image of any size, in windows that leave no seam."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32

from jaisp.embedding.layout import WINDOW
from jaisp.embedding.mosaic import Planes, covered_squares
from jaisp.model import Model

# read(y, x, height, width), in tokens; it may reach over the edges, where all is missing.
Read = Callable[[int, int, int, int], Planes]


class Window(NamedTuple):
    """A rectangle of an image, read with its margin; `covered` is of the rectangle alone."""

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
    window: int = WINDOW,
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
    window: side of a window without its margin, in tokens; the image ends the last ones.
    workers: how many windows are encoded at once, each in a thread of its own.

    Yields the first token row of each row of windows, and its tokens, NaN where uncovered.
    """
    height, width = shape
    margin = margin_tokens(model)
    n = model.config.surveys[survey].pixels_per_token

    def covered_windows(y: int, rows: int) -> Iterator[Window]:
        for x in range(0, width, window):
            columns = min(window, width - x)
            planes = read(y - margin, x - margin, rows + 2 * margin, columns + 2 * margin)
            covered = _inner(covered_squares(planes, n), margin)
            if covered.any():
                yield Window(x, planes, covered)

    def encode(one: Window) -> Float32[np.ndarray, "dimension row column"]:
        return _inner(_encode(model, one.planes, survey, bands), margin)

    with ThreadPoolExecutor(workers) as pool:
        for y in range(0, height, window):
            rows = min(window, height - y)
            strip = np.full((model.config.dimensions, rows, width), np.nan, np.float32)
            under_way: deque[tuple[Window, Future]] = deque()
            for one in covered_windows(y, rows):
                under_way.append((one, pool.submit(encode, one)))
                # The next ones are read meanwhile; more than that would fill memory.
                if len(under_way) > workers:
                    _fill(strip, *under_way.popleft())
            while under_way:
                _fill(strip, *under_way.popleft())
            yield y, strip


def _inner(tokens: np.ndarray, margin: int) -> np.ndarray:
    """Tokens without the margin around them."""
    height, width = tokens.shape[-2:]
    return tokens[..., margin : height - margin, margin : width - margin]


def _encode(
    model: Model, planes: Planes, survey: str, bands: Sequence[str]
) -> Float32[np.ndarray, "dimension row column"]:
    """Tokens of a window and its margin."""
    # TF32 convolutions differ by 1e-3 from one window to the next: more than a seam may show.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), exact if model.device.type == "cuda" else nullcontext():
        tokens = model.encode(
            planes.flux[None],
            planes.noise[None],
            planes.mask[None],
            survey=survey,
            bands=list(bands),
        )
    return tokens[0].float().cpu().numpy()


def _fill(
    strip: Float32[np.ndarray, "dimension row column"], window: Window, encoded: Future
) -> None:
    """Put the tokens of a window into its row's `strip`."""
    columns = slice(window.x, window.x + window.covered.shape[1])
    strip[:, :, columns] = np.where(window.covered, encoded.result(), np.nan)
