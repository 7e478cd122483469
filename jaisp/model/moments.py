"""Where light lies about each token: moments of maps in which sources stand out.

A mean over a token says what is there and forgets where. Here each pixel is weighted by how surely
a source lies on it, and the token is given the weights' sum, their centre and their spread in
windows about it: numbers that are linear in a source's position, to a small part of a pixel,
whatever the instrument. Also places and shapes of peaks; and each band's S/N there, from which
fluxes follow. docs/architecture.md has the reasons.
"""

import math
from typing import Any, NamedTuple

import torch
from astropy.stats import gaussian_fwhm_to_sigma, gaussian_sigma_to_fwhm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jaisp.model.blocks import grid_strides
from jaisp.model.peaks import PLACE, SHAPE, WIDTH, peaks_of
from jaisp.model.smoothing import smoothed

# Widths (1 σ, arcsec) of the Gaussians that filters are made of, and the smallest in pixels.
NARROWEST, WIDEST, WIDTHS = 0.07, 0.45, 4
NARROWEST_PIXELS = 0.45
CUT = 2.25  # σ at which Gaussians end
# Windows, in tokens from a token's centre: flat to the first, nothing beyond the second.
WINDOWS = ((0.75, 1.0), (1.25, 1.75))
# How weights rise with the squared S/N: from where, how steeply in the first and the last map of a
# window, and to what logarithm at most.
FAINTEST, STEEPNESS, MOST = 8.0, (1.5, 5.0), 50.0
# Filters begin as wide as the PSF, or this many times.
BEGINNINGS = (1.0, 1.4, 0.7)


class Sharp(NamedTuple):
    """How a map whose peaks are told begins.

    width: of the filter, over the PSF's. steepness: of the weights. alone: the filter's sum is
    zero, so that the light around a source doesn't draw its peak along.
    """

    width: float
    steepness: float
    alone: bool


SHARP = (Sharp(1.0, 10.0, alone=True), Sharp(0.85, 6.0, alone=False))
PEAKS = (PLACE + SHAPE + WIDTH) * len(WINDOWS) * len(SHARP)  # numbers that tell of them
SHIFT = 75.0  # taken off the logarithm of these maps' weights, which fill what float32 can hold
# Powers of y and x in a map's moments.
ORDERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))


class Moments(nn.Module):
    """Moments of `maps` maps about every token, half of the maps in each of the two windows.

    Map h is made from every band's signal in units of its noise, s_b. With G_j a Gaussian of unit
    square sum and σ_bj the scatter of what it makes of noise, the S/N under a filter of learned
    shape is m_hb = Σ_j a_hbj (G_j * s_b) / σ_bj; over the bands q_h = Σ_b max(m_hb, 0)², which for
    filters like the PSF is twice the logarithm of the likelihood ratio of a point source at this
    pixel with any flux in each band. The pixel's weight is (1 + q_h / τ_h)^c_h.

    Two further maps, SHARP, are for what neighbours must not blur: peaks of log(1 + q_h / τ_h), by
    weights so steep that one source counts in a window (`peaks.py`).

    Calling it gives numbers of the peaks in each window, then the moments, [sample, PEAKS +
    maps · 6, row, column], lengths in tokens; and the mean of m_hb by weight in each window, of its
    last map, [window, sample, band, row, column]: of sources that outshine all else in the window,
    the S/N where they lie.
    """

    def __init__(
        self,
        bands: int,
        pixels_per_token: int,
        grid_arcsec: float,
        finest_arcsec: float,
        maps: int,
    ) -> None:
        super().__init__()
        # Squares of so many pixels are taken as one.
        self.step = grid_strides(pixels_per_token, grid_arcsec, finest_arcsec)[0]
        pixels_per_token, grid_arcsec = pixels_per_token // self.step, self.step * grid_arcsec
        self.pixels_per_token, self.grid_arcsec = pixels_per_token, grid_arcsec
        sigmas = filter_widths(grid_arcsec)
        self.cut = math.ceil(CUT * sigmas[-1])
        offset = torch.arange(-self.cut, self.cut + 1)
        gaussians = torch.exp(-0.5 * (offset / torch.tensor(sigmas)[:, None]).square())
        gaussians = gaussians / gaussians.square().sum(dim=1, keepdim=True).sqrt()
        self.gaussians = nn.Buffer(gaussians, persistent=False)
        # Of the noise under each Gaussian, in units of a pixel's: 1 where pixels are independent.
        # Training measures it.
        self.scatter = nn.Buffer(torch.ones(bands, WIDTHS))
        self.sums = nn.Buffer(gaussians.sum(dim=1).square(), persistent=False)  # in two dimensions
        self.maps, every = maps, maps + len(SHARP)
        self.filters = nn.Parameter(torch.empty(every, bands, WIDTHS))
        self.begin(torch.full((bands,), gaussian_sigma_to_fwhm * sigmas[WIDTHS // 2] * grid_arcsec))
        steepness = torch.linspace(*STEEPNESS, maps // len(WINDOWS)).repeat(len(WINDOWS))
        sharp = torch.tensor([own.steepness for own in SHARP])
        self.steepness = nn.Parameter(torch.cat([steepness, sharp]).log())
        self.faintest = nn.Parameter(torch.full((every,), math.log(FAINTEST)))
        self.nothing = nn.Parameter(torch.full((every,), 3.0))
        self.margin = math.ceil((WINDOWS[-1][1] - 0.5) * pixels_per_token)
        self.channels = PEAKS + maps * len(ORDERS)

    @property
    def reach(self) -> int:
        """Pixels beyond a token that change it."""
        return self.step * (self.margin + self.cut + 1)

    def forward(self, inputs: Tensor, bands: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; `inputs` [sample, band, 3, y, x], of the bands of these numbers."""
        with torch.autocast(inputs.device.type, enabled=False):
            plain, sharp, seen, snr = self._rise(inputs.float(), bands)
            weight = self._weight(plain, seen)
            found = torch.cat([self._peaks(sharp, seen), self._moments(self._sums(weight))], dim=1)
            return found, self._snr(weight, snr)

    @torch.no_grad()
    def begin(self, fwhm_arcsec: Tensor) -> None:
        """Fresh filters, after the noise is measured: of each band's PSF, [band], and wider and
        narrower; NaN where unknown, which begins as the others' median."""
        fwhm = fwhm_arcsec.nan_to_num(float(fwhm_arcsec.nanmedian()))
        widths = torch.tensor(filter_widths(self.grid_arcsec)).log()
        each = self.maps // len(WINDOWS)
        times = [BEGINNINGS[number % each % len(BEGINNINGS)] for number in range(self.maps)]
        for own, width in zip(self.filters, [*times, *(s.width for s in SHARP)], strict=True):
            wanted = (width * fwhm * gaussian_fwhm_to_sigma / self.grid_arcsec).log()
            # Between the two nearest Gaussians.
            wanted = wanted.clamp(widths[0], widths[-1])
            away = (wanted[:, None] - widths).abs() / (widths[1] - widths[0])
            own.copy_((1 - away).clamp(min=0) + 0.05 * torch.randn(away.shape))
        sums = self.sums / self.scatter.cpu()
        for own, sharp in zip(self.filters[self.maps :], SHARP, strict=True):
            if sharp.alone:
                # The widest Gaussian takes off what the others add up to.
                own[:, -1] -= (own.cpu() * sums).sum(dim=1).to(own.device) / sums[:, -1]

    @torch.no_grad()
    def measure(self, inputs: Tensor) -> Tensor:
        """Scatter of signal under each Gaussian, of all bands of some sky, [band, width]: from the
        median of absolute values, so that sources count for little; 1 in a band without a pixel."""
        flux, valid = self._flux(inputs)
        found = torch.ones_like(self.scatter)
        for band in range(flux.shape[1]):
            if valid[:, band].any():
                smooth = smoothed(flux[:, band], self.gaussians).abs().transpose(0, 1)
                found[band] = smooth[:, valid[:, band]].median(dim=1).values / 0.6745
        return found

    def _rise(self, inputs: Tensor, bands: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log(1 + q / τ) of the maps that moments are of and of those of peaks, [sample, map, y,
        x]; where any band is valid; and S/N of the last map of each window, [sample, window, band,
        y, x]."""
        flux, valid = self._flux(inputs)
        filters = self.filters[:, bands] / self.scatter[bands]
        last = filters[: self.maps].unflatten(0, (len(WINDOWS), -1))[:, -1]
        filters = filters * (-0.5 * self.faintest).exp()[:, None, None]  # q / τ is a sum of squares
        square, snr = flux.new_zeros(len(filters), *flux[:, 0].shape), []
        # Band by band: on a CPU, what was just made is still in the cache.
        for number in range(flux.shape[1]):
            smooth = smoothed(flux[:, number], self.gaussians).transpose(0, 1)
            square = squares(square, filters[:, number], smooth)
            snr.append((last[:, number] @ smooth.flatten(1)).unflatten(1, smooth.shape[1:]))
        parts = square.log1p().split((self.maps, len(SHARP)))
        plain, sharp = (part.transpose(0, 1) for part in parts)
        seen = valid.any(dim=1, keepdim=True)
        return plain, sharp, seen, torch.stack(snr, dim=1).movedim(2, 0)

    def _weight(self, rise: Tensor, seen: Tensor) -> Tensor:
        """Weights of the maps that moments are of, [sample, map, y, x]."""
        level = self.steepness[: self.maps].exp()[:, None, None] * rise
        return level.clamp(max=MOST).exp() * seen

    def _peaks(self, rise: Tensor, seen: Tensor) -> Tensor:
        """Places and shapes of peaks in each window, [sample, number, row, column]."""
        level = self.steepness[self.maps :].exp()[:, None, None] * rise - SHIFT
        weight = level.clamp(max=SHIFT).exp() * seen
        nothing = (self.nothing[self.maps :] - SHIFT).exp() * self.pixels_per_token**2
        height, width = (size // self.pixels_per_token for size in rise.shape[2:])
        rows, columns = (self._windows(length, rise.device)[:, :2] for length in (height, width))
        return peaks_of(rise, weight, nothing, rows, columns)

    def _flux(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Flux in units of a pixel's noise, and where it is valid, [sample, band, y, x]."""
        flux, valid = inputs[:, :, 0].clamp(-12, 12).sinh(), inputs[:, :, 1]
        if self.step > 1:
            flux = _summed(flux, self.step) / self.step
            valid = _summed(valid, self.step) / self.step**2
        return flux, valid >= 0.5

    def _sums(self, weight: Tensor) -> Tensor:
        """Weights times 1, y, x, yy, yx and xx, in tokens, [sample, map, moment, row, column]."""
        height, width = (size // self.pixels_per_token for size in weight.shape[2:])
        by_window = weight.unflatten(1, (len(WINDOWS), -1))
        y, x = (self._windows(length, weight.device)[:, None] for length in (height, width))
        both = y.flatten(2, 3) @ by_window @ x.flatten(2, 3).transpose(2, 3)
        powers = both.unflatten(4, (-1, width)).unflatten(3, (-1, height)).flatten(1, 2)
        return torch.stack([powers[:, :, of_y, :, of_x] for of_y, of_x in ORDERS], dim=2)

    def _snr(self, weight: Tensor, snr: Tensor) -> Tensor:
        """Means of S/N by weight, [window, sample, band, row, column]."""
        own = weight.unflatten(1, (len(WINDOWS), -1))[:, :, -1:]
        height, width = (size // self.pixels_per_token for size in weight.shape[2:])
        y, x = (self._windows(length, weight.device)[:, :1] for length in (height, width))
        sums = y @ torch.cat([own, own * snr], dim=2) @ x.transpose(2, 3)
        total = sums[:, :, :1].clamp(min=1e-6)
        return (sums[:, :, 1:] / total).transpose(0, 1)

    def _windows(self, tokens: int, device: torch.device) -> Tensor:
        """The windows of a row of tokens times 1, y and yy, [window, power, token, pixel]."""
        pixels = torch.arange(tokens * self.pixels_per_token, device=device) + 0.5
        centres = torch.arange(tokens, device=device) + 0.5
        away = pixels / self.pixels_per_token - centres[:, None]
        windows = [((end - away.abs()) / (end - flat)).clamp(0, 1) for flat, end in WINDOWS]
        return torch.stack([torch.stack([w, w * away, w * away**2]) for w in windows])

    def _moments(self, sums: Tensor) -> Tensor:
        # Where nothing stands out, the centre is the token's own.
        nothing = self.nothing[: self.maps].exp() * self.pixels_per_token**2
        total = sums[:, :, :1] + nothing[:, None, None, None]
        centre, square = sums[:, :, 1:3] / total, sums[:, :, 3:] / total
        spread = square - centre[:, :, [0, 0, 1]] * centre[:, :, [0, 1, 1]]
        level = total.log() / self.steepness[: self.maps].exp()[:, None, None, None]
        return torch.cat([centre, 3 * spread, 0.3 * level], dim=2).flatten(1, 2)


def squares(square: Tensor, filters: Tensor, planes: Tensor) -> Tensor:
    """square + max(filters @ planes, 0)², which may be written over `square`.

    square: [map, ...]. filters: [map, plane]. planes: [plane, ...].
    """
    if torch.compiler.is_compiling():  # it joins the parts by itself
        positive = (filters @ planes.flatten(1)).relu().view_as(square)
        return torch.addcmul(square, positive, positive)
    return _Squares.apply(square, filters, planes)


class _Squares(torch.autograd.Function):
    """In a third of the passes over memory that its parts would take, forward and backward."""

    @staticmethod
    def forward(ctx: Any, square: Tensor, filters: Tensor, planes: Tensor) -> Tensor:
        positive = (filters @ planes.flatten(1)).relu_()
        ctx.save_for_backward(filters, planes, positive)
        ctx.mark_dirty(square)
        return square.addcmul_(positive.view_as(square), positive.view_as(square))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        filters, planes, positive = ctx.saved_tensors
        grad = grad.contiguous()
        slope = grad.flatten(1) * positive
        of_filters = 2 * (slope @ planes.flatten(1).T)
        of_planes = 2 * (filters.T @ slope).view_as(planes) if ctx.needs_input_grad[2] else None
        return grad, of_filters, of_planes


def _summed(planes: Tensor, step: int) -> Tensor:
    """Sums of squares of step × step pixels: on a CPU in a third of avg_pool2d's time."""
    first, *others = (planes[..., row::step, :] for row in range(step))
    rows = sum(others, first)
    first, *others = (rows[..., column::step] for column in range(step))
    return sum(others, first)


def filter_widths(grid_arcsec: float) -> list[float]:
    """σ of the Gaussians, in pixels, evenly in logarithm."""
    narrowest = max(NARROWEST / grid_arcsec, NARROWEST_PIXELS)
    widest = max(WIDEST / grid_arcsec, 2 * narrowest)
    step = (widest / narrowest) ** (1 / (WIDTHS - 1))
    return [narrowest * step**number for number in range(WIDTHS)]
