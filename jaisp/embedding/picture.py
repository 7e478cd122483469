"""Colour pictures of the sky and of its embedding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.visualization import make_lupton_rgb
from jaxtyping import Float, UInt8
from PIL import Image

from jaisp.embedding.mosaic import Planes, squares
from jaisp.files import atomic_write

# Shown where there is no data, in images and embeddings alike.
NO_DATA = (38, 40, 46)
# Bands are balanced on pixels above BRIGHT σ, which come out WHITE; at most MOST_GAIN apart.
BRIGHT, WHITE, MOST_GAIN = 5.0, 8.0, 4.0


def colour_bands(bands: Sequence[str]) -> list[int]:
    """Which bands make a colour picture, bluest first: spread over the survey's own order.

    At most three; `image_rgb` makes grey of one and puts the mean of two between them.
    """
    count = len(bands)
    if count <= 3:
        return list(range(count))
    if count == 4:
        return [0, 2, 3]
    return [round(position * (count - 1) / 4) for position in (1, 2, 3)]


def image_rgb(
    flux: Float[np.ndarray, "band y x"], noise: Float[np.ndarray, "band y x"]
) -> UInt8[np.ndarray, "y x 3"]:
    """Colour picture of one, two or three bands, bluest first.

    Lupton et al. (2004, PASP 116, 133): one asinh stretch of the summed light, so that colours
    stay true in bright cores. Bands are balanced so that the field's light is white on average.
    """
    valid = np.isfinite(flux)
    balanced = _balanced(flux, noise)
    if len(balanced) == 1:
        blue = green = red = balanced[0]
    elif len(balanced) == 2:
        blue, red = balanced
        green = (blue + red) / 2
    else:
        blue, green, red = balanced
    picture = make_lupton_rgb(red, green, blue, minimum=-0.6, stretch=4.0, Q=9.0)
    picture[~valid.any(axis=0)] = NO_DATA
    return picture


def grey(
    flux: Float[np.ndarray, "y x"], noise: Float[np.ndarray, "y x"]
) -> UInt8[np.ndarray, "y x"]:
    """One band with an asinh stretch from −1.5σ to its brightest 0.2 % (at least 30σ), white."""
    sigma = _background(noise)
    known = flux[np.isfinite(flux)]
    top = max(float(np.percentile(known, 99.8)) / sigma, 30.0) if known.size else 30.0
    stretched = np.arcsinh(np.nan_to_num(flux / sigma) / 3)
    low, high = np.arcsinh(-0.5), np.arcsinh(top / 3)
    scaled = 255 * ((stretched - low) / (high - low)).clip(0, 1)
    return np.where(np.isfinite(flux), scaled, NO_DATA[1]).astype(np.uint8)


def component_rgb(
    components: Float[np.ndarray, "component y x"], spread: Float[np.ndarray, " component"]
) -> UInt8[np.ndarray, "y x 3"]:
    """The three leading components as colour, softly saturating at twice their `spread`."""
    shown = np.zeros((3, *components.shape[1:]))
    shown[: len(components)] = components[:3] / spread[:3, None, None]
    colour = 127.5 * (1 + np.tanh(np.nan_to_num(shown) / 2))
    picture = np.moveaxis(colour, 0, -1).round().astype(np.uint8)
    picture[~np.isfinite(components).all(axis=0)] = NO_DATA
    return picture


def shrink(
    planes: Planes, side: int
) -> tuple[Float[np.ndarray, "band y x"], Float[np.ndarray, "band y x"]]:
    """Mean flux and its noise over squares of `side` pixels; NaN where none is valid."""
    valid = planes.valid
    count = squares(valid, side).sum(axis=-1)
    nothing = np.full(count.shape, np.nan, np.float32)
    flux = squares(np.where(valid, planes.flux, 0), side).sum(axis=-1)
    variance = squares(np.where(valid, planes.noise, 0) ** 2, side).sum(axis=-1)
    mean = np.divide(flux, count, out=nothing, where=count > 0)
    sigma = np.divide(np.sqrt(variance), count, out=nothing.copy(), where=count > 0)
    return mean, sigma


def save_png(path: Path, picture: UInt8[np.ndarray, "y x *colour"]) -> None:
    """Write a picture, first row at the bottom as in FITS: north is up."""
    with atomic_write(path) as temporary:
        Image.fromarray(picture[::-1]).save(temporary, format="PNG", optimize=True)


def _balanced(
    flux: Float[np.ndarray, "band y x"], noise: Float[np.ndarray, "band y x"]
) -> Float[np.ndarray, "band y x"]:
    """Bands in units in which the same bright pixels are as bright in each."""
    sigma = np.array([_background(band) for band in noise])
    ratio = np.nan_to_num(flux / sigma[:, None, None])
    together = ratio.mean(axis=0)
    bright = ratio[:, together > BRIGHT]
    if not bright.size:
        return ratio
    # A band that hardly sees the sources would show nothing but its noise.
    level = np.maximum(np.median(bright, axis=1), BRIGHT / MOST_GAIN)
    return ratio * (WHITE / level)[:, None, None]


def _background(noise: np.ndarray) -> float:
    valid = noise[np.isfinite(noise) & (noise > 0)]
    return float(np.percentile(valid, 10)) if valid.size else 1.0
