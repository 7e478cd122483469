"""Layers of the encoders.

All of them see a bounded neighbourhood and no position: statistics over space, or absolute
positions, would make a token depend on the window that it was computed in.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class BandStem(nn.Module):
    """The first convolution, over any set of bands.

    Every band has a learned vector; its kernel is that vector times a bank of kernels. The sum
    over bands has no order, and a band that is not there adds nothing. `stride` pixels become
    one position.
    """

    INPUTS = 3

    def __init__(self, bands: int, vector: int, width: int, stride: int) -> None:
        super().__init__()
        margin = -(-stride // 2)
        self.stride, self.margin = stride, margin
        side = stride + 2 * margin
        self.vectors = nn.Parameter(torch.randn(bands, vector))
        # As large as a plain convolution of one band: vectors have variance 1 an entry.
        bound = (vector * self.INPUTS * side * side) ** -0.5
        self.bank = nn.Parameter(torch.randn(vector, width, self.INPUTS, side, side) * bound)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: Tensor, bands: Tensor) -> Tensor:
        """`inputs` [sample, band, INPUTS, y, x], of which [:, :, 1] is validity; `bands` [band]."""
        kernel = torch.einsum("bv,vcihw->cbihw", self.vectors[bands], self.bank).flatten(1, 2)
        inputs_flat = inputs.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        out = functional.conv2d(inputs_flat, kernel, stride=self.stride, padding=self.margin)
        count = inputs[:, :, 1].sum(dim=1, keepdim=True)
        count = functional.avg_pool2d(count, self.stride) if self.stride > 1 else count
        return out * count.clamp(min=1.0).rsqrt() + self.bias[:, None, None]


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each position by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [sample, channel, y, x]."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around a non-linearity, added to their input."""

    REACH = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        # Near the identity at first.
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [sample, channel, y, x], and so is the result."""
        return x + self.second(functional.gelu(self.first(self.norm(x))))


class TokenBlock(nn.Module):
    """Depthwise 7 × 7 convolution and a perceptron a token (ConvNeXt: Liu et al. 2022)."""

    REACH = 3

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-3)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [sample, channel, row, column], and so is the result."""
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        y = self.contract(functional.gelu(self.expand(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def grid_strides(
    pixels_per_token: int,
    grid_arcsec: float,
    finest_arcsec: float,
    coarsest_arcsec: float = math.inf,
) -> list[int]:
    """Pixels between positions of each grid, from the first to the last before the tokens.

    Each divides the next, and the last a token: by two as long as that goes. The first is the
    largest that keeps positions within `finest_arcsec` of each other, or else one pixel; the last
    the largest that keeps them within `coarsest_arcsec`, or else the first.
    """
    strides = [1]
    while pixels_per_token % (2 * strides[-1]) == 0 and 2 * strides[-1] < pixels_per_token:
        strides.append(2 * strides[-1])
    first, last = (
        max(sum(stride * grid_arcsec <= arcsec * 1.01 for stride in strides) - 1, 0)
        for arcsec in (finest_arcsec, coarsest_arcsec)
    )
    return strides[first : max(last, first) + 1]
