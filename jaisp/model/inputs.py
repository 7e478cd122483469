"""From calibrated pixels to what a network sees."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from jaisp.store.layout import UNUSABLE


def network_inputs(
    flux: Tensor, noise: Tensor, mask: Tensor | None, typical_noise: Tensor
) -> Tensor:
    """Three numbers a pixel: stretched signal, validity, and how deep the image is.

    Signal is asinh(flux / noise): linear in the noise, logarithmic in bright stars, never
    clipped. Depth is the logarithm of the noise over the band's typical noise. Both are 0 where
    a pixel is invalid (flux or noise not finite, noise ≤ 0, or flagged bad, cosmic ray or edge),
    and there validity is 0 as well: an empty pixel is 0 and valid, a missing one is not.

    Parameters
    ----------
    flux, noise: nJy, [sample, band, y, x]; noise is 1 σ. mask: bits of `jaisp.store.layout.Flag`.
    typical_noise: nJy, [band].

    Returns float32 [sample, band, 3, y, x].
    """
    samples, bands, *shape = flux.shape
    inputs = torch.empty((samples, bands, 3, *shape), dtype=flux.dtype, device=flux.device)
    # Band by band: on a CPU, memory that was just used is in the cache, and nobody clears it anew.
    for band in range(bands):
        own = flux[:, band], noise[:, band], None if mask is None else mask[:, band]
        for number, values in enumerate(_band_inputs(*own, typical_noise[band])):
            inputs[:, band, number] = values
    return inputs


def _band_inputs(
    flux: Tensor, noise: Tensor, mask: Tensor | None, typical_noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # NaN is on neither side of anything: in fewer passes than torch.isfinite.
    valid = (flux.abs() < torch.inf) & (noise > 0) & (noise < torch.inf)
    if mask is not None:
        bits = mask if mask.dtype == torch.uint8 else mask.to(torch.int32)
        valid &= (bits & int(UNUSABLE)) == 0
    sigma = torch.where(valid, noise, 1.0)
    signal = asinh(torch.where(valid, flux, 0.0) / sigma)
    return signal, valid, torch.where(valid, torch.log(sigma / typical_noise), 0.0)


def asinh(values: Tensor) -> Tensor:
    """log(x + √(x² + 1)) to float32's precision: on a CPU in a quarter of torch.asinh's time."""
    size = values.abs()
    return torch.log1p(size + size * (size / (1 + torch.sqrt(1 + size * size)))).copysign(values)


def as_planes(values: Tensor | np.ndarray | Sequence, device: torch.device) -> Tensor:
    """Planes as float32 on a device, from torch or from numpy of any byte order.

    They may share the memory of what is given.
    """
    if isinstance(values, Tensor):
        return values.to(device, torch.float32)
    return _from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)


def as_flags(values: Tensor | np.ndarray | Sequence, device: torch.device) -> Tensor:
    """A mask's bits on a device, as `as_planes`: uint8 as it is, all else as int32."""
    if isinstance(values, Tensor):
        return values.to(device, torch.uint8 if values.dtype == torch.uint8 else torch.int32)
    values = np.asarray(values)
    kind = np.uint8 if values.dtype == np.uint8 else np.int32
    return _from_numpy(np.ascontiguousarray(values, dtype=kind)).to(device)


def _from_numpy(values: np.ndarray) -> Tensor:
    # Torch knows no arrays that can't be written to.
    return torch.from_numpy(values if values.flags.writeable else values.copy())
