"""Point sources added to real sky, whose places are known: what positions are learned from.

Each is a Moffat profile as wide as the band's PSF on that patch, integrated over pixels, at a
random place on a small window of a survey's own training sky, with its noise and whatever else
lies there. Its S/N, in that noise as it is correlated, is drawn evenly in logarithm and shared
among the bands at random: no catalogue and no spectrum is needed.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import avg_pool2d

from jaisp.config.train import TrainConfig
from jaisp.model.inputs import asinh
from jaisp.store.correlation import DISC_OF_FWHM
from jaisp.train.dither import MARGIN
from jaisp.train.patches import Codes, Patches
from jaisp.train.ranks import own_part
from jaisp.train.views import cut, draw_dither, draw_phase, turned_fraction

log = logging.getLogger(__name__)

WINDOW = 6  # tokens along a side
LOWEST_SNR, HIGHEST_SNR = 5.0, 300.0
MOFFAT_BETA = 3.0
WIDTH_ERROR = 0.03  # of the PSF's width: it is never known better
FINE = 3  # samples of the profile along a pixel's side
PIXELS_FLOOR = 0.01  # of a pixel: no position is asked for to less
GAUSSIAN = 0.6  # σ of a position over FWHM / S/N, of profiles that are about Gaussian


@dataclass(frozen=True)
class ImplantDraw:
    """Windows of one survey, still coded, and the sources to be added.

    offset: y, x from the centre of the window's middle token, arcsec. snr: [source, band], of a
    matched filter. correlation: [source, band], its noise over that of white noise. fwhm: [source,
    band], arcsec. fraction: [source, 2], by which the windows are yet to be displaced, in pixels.
    """

    survey: str
    codes: Codes
    offset: Float32[Tensor, "source 2"]
    snr: Float32[Tensor, "source band"]
    correlation: Float32[Tensor, "source band"]
    fwhm: Float32[Tensor, "source band"]
    fraction: Float32[Tensor, "source 2"] | None = None


@dataclass(frozen=True)
class Implanted:
    """What an encoder is given, and what its middle tokens are to tell.

    inputs: [source, band, 3, y, x]. offset: as above. error: what a good answer's error is about,
    arcsec, from the S/N and the widths.
    """

    inputs: Tensor
    offset: Float32[Tensor, "source 2"]
    error: Float32[Tensor, " source"]


class Implants:
    """Draws the implants of any step, from the seed and the step's number alone.

    surveys: those for which any are made: the PSF's width is known on some patch. None where the
    position term has no weight.
    """

    def __init__(self, patches: Patches, settings: TrainConfig) -> None:
        self.patches, self.count, self.seed = patches, settings.position.sources, settings.seed
        self.dither = settings.dither
        self.window = min(WINDOW, patches.tokens - 1)
        self.surveys: list[str] = []
        if settings.position.weight:
            self.fwhm = {survey: _widths(patches, survey) for survey in patches.surveys}
            self.surveys = [survey for survey, widths in self.fwhm.items() if widths]
            for survey in sorted(set(patches.surveys) - set(self.surveys)):
                log.warning("train.position: no width of a PSF of %s is known; left out", survey)
            self.part = own_part(self.count, "train.position.sources")

    def draw(self, step: int, survey: str) -> ImplantDraw:
        """The sources of one survey; of those of all ranks, this one's."""
        number = self.patches.surveys.index(survey)
        rng = np.random.default_rng([self.seed, step, number])
        token, n = self.patches.store.token_arcsec, self.patches.n[survey]
        chosen = rng.choice(sorted(self.fwhm[survey]), size=self.count)
        last = self.patches.tokens - self.window
        corner = rng.integers(0, last, size=(self.count, 2)) + [
            draw_phase(rng, (n, n)) for _ in range(self.count)
        ]
        if self.dither:
            corner = corner + [draw_dither(rng, (n, n), self.dither) for _ in range(self.count)]
        turn = rng.integers(8, size=self.count)
        offset = rng.uniform(-token, token, (self.count, 2))
        widths = np.stack([self.fwhm[survey][patch] for patch in chosen.tolist()])
        widths = widths * (1 + WIDTH_ERROR * rng.uniform(-1, 1, (self.count, 1)))
        known = np.isfinite(widths)
        correlation = [
            self.patches.correlation_within(patch, survey, DISC_OF_FWHM * wide)
            for patch, wide in zip(chosen.tolist(), np.where(known, widths, 1.0), strict=True)
        ]
        share = rng.dirichlet(np.ones(widths.shape[1]), size=self.count) * known
        share /= share.sum(axis=1, keepdims=True)
        log_snr = rng.uniform(math.log(LOWEST_SNR), math.log(HIGHEST_SNR), (self.count, 1))
        own = range(self.count)[self.part]
        patches = self.patches.codes([int(chosen[k]) for k in own], survey)
        windows = [
            cut(codes, corner[k], self.window, n, int(turn[k]), MARGIN if self.dither else 0)
            for k, codes in zip(own, patches, strict=True)
        ]
        fraction = np.stack([turned_fraction(corner[k], n, int(turn[k])) for k in own])
        return ImplantDraw(
            survey,
            {name: torch.from_numpy(np.stack([w[name] for w in windows])) for name in windows[0]},
            offset=self._own(offset),
            snr=self._own(np.exp(log_snr) * np.sqrt(share)),
            correlation=self._own(np.stack(correlation)),
            fwhm=self._own(np.where(known, widths, 1.0)),
            fraction=torch.from_numpy(fraction) if self.dither else None,
        )

    def _own(self, values: Float[np.ndarray, "source _"]) -> Float32[Tensor, "own _"]:
        return torch.from_numpy(values[self.part].astype(np.float32))

    def show(self, draw: ImplantDraw, device: torch.device) -> Implanted:
        """The windows with their sources, made on the device."""
        inputs = self.patches.inputs(draw.codes, draw.survey, device, draw.fraction)
        signal, valid, depth = inputs.unbind(dim=2)
        grid = self.patches.store.grid_arcsec(draw.survey)
        middle = (self.window // 2 + 0.5) * self.patches.store.token_arcsec
        snr, fwhm, offset = (t.to(device) for t in (draw.snr, draw.fwhm, draw.offset))
        amplitude = snr * draw.correlation.to(device)
        profile = point_sources(offset + middle, fwhm, grid, signal.shape[-1])
        flux = signal.sinh() + amplitude[:, :, None, None] * profile
        added = torch.stack([asinh(flux), valid, depth], dim=2)
        # A band without a pixel tells nothing of where a source lies.
        seen = snr * (valid.flatten(2).amax(dim=2) > 0)
        error = (seen / (GAUSSIAN * fwhm)).square().sum(dim=1).rsqrt()
        floor = PIXELS_FLOOR * grid
        return Implanted(
            torch.where(valid[:, :, None] > 0, added, 0.0),
            offset,
            (error.clamp(max=self.patches.store.token_arcsec).square() + floor**2).sqrt(),
        )


def point_sources(
    place: Float32[Tensor, "source 2"],
    fwhm: Float32[Tensor, "source band"],
    grid_arcsec: float,
    side: int,
) -> Float32[Tensor, "source band side side"]:
    """Moffat profiles on pixels, each of unit S/N under a matched filter in noise of 1 a pixel.

    place: y, x from the image's corner, arcsec.
    """
    scale = fwhm / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    axis = (torch.arange(side * FINE, device=place.device) + 0.5) * (grid_arcsec / FINE)
    dy, dx = (axis - place[:, k, None] for k in (0, 1))
    radius = dy.square()[:, None, :, None] + dx.square()[:, None, None, :]
    fine = (1 + radius / scale[:, :, None, None].square()).pow(-MOFFAT_BETA)
    profile = avg_pool2d(fine, FINE)
    return profile / profile.square().sum(dim=(2, 3), keepdim=True).sqrt()


def _widths(patches: Patches, survey: str) -> dict[int, Float32[np.ndarray, " band"]]:
    """FWHM of the bands by patch, arcsec; NaN where there is no pixel, or none is known."""
    widths = {}
    for number in patches.covered[survey]:
        known = np.array(patches.store[number][survey].psf_fwhm_arcsec, np.float32)
        known[~patches.present[survey][number]] = np.nan
        if np.isfinite(known).any():
            widths[number] = known
    return widths
