"""Point sources added to real sky, whose places are known: what positions are learned from.

Each is a Moffat profile as wide as the band's PSF on that patch, or wider where
`train.position.broadest` says so, integrated over pixels, at a random place on a small window of
training sky, with its noise and whatever else lies there. It is the same source on the same sky in
every survey: its spectrum is that of a source of the training sky (`spectra.py`), and its S/N, in
the noise as it is correlated, is drawn evenly in logarithm. No catalogue is needed.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from jaisp.config.train import TrainConfig
from jaisp.model.inputs import asinh
from jaisp.store.correlation import DISC_OF_FWHM
from jaisp.train.dither import MARGIN
from jaisp.train.patches import Codes, Patches
from jaisp.train.ranks import own_part
from jaisp.train.spectra import ByBand, Spectra
from jaisp.train.views import cut, draw_dither, draw_phase, turn_plane, turned_fraction
from jaisp.train.weight import token_snr

log = logging.getLogger(__name__)

WINDOW = 6  # tokens along a side
AROUND = 1  # tokens on each side of the reference that tell of a source, too
MOFFAT_BETA = 3.0
WIDTH_ERROR = 0.03  # of the PSF's width: it is never known better
FINE = 3  # samples of the profile along a pixel's side
PIXELS_FLOOR = 0.01  # of a pixel: no position is asked for to less
GAUSSIAN = 0.6  # σ of a position over FWHM / S/N, of profiles that are about Gaussian


@dataclass(frozen=True)
class ImplantDraw:
    """Windows of one survey, still coded, and the sources to be added.

    token: row and column of each window's reference token. offset: y, x from its centre, arcsec.
    snr: [source, band], of a matched filter. correlation: [source, band], its noise over that of
    white noise. token_correlation: likewise, of a token's sum. fwhm: [source, band], arcsec.
    fraction: [source, 2], by which the windows are yet to be displaced, in pixels.
    """

    survey: str
    codes: Codes
    token: Int[Tensor, "source 2"]
    offset: Float32[Tensor, "source 2"]
    snr: Float32[Tensor, "source band"]
    correlation: Float32[Tensor, "source band"]
    token_correlation: Float32[Tensor, "source band"]
    fwhm: Float32[Tensor, "source band"]
    fraction: Float32[Tensor, "source 2"] | None = None


@dataclass(frozen=True)
class Implanted:
    """What an encoder is given, and what its reference tokens are to tell.

    inputs: [source, band, 3, y, x]. token, offset: as above. error: what a good answer's error is
    about, arcsec, from the S/N and the widths. token_snr: [source, row, column], of all that a
    token shows.
    """

    inputs: Tensor
    token: Int[Tensor, "source 2"]
    offset: Float32[Tensor, "source 2"]
    error: Float32[Tensor, " source"]
    token_snr: Float32[Tensor, "source row column"]


@dataclass(frozen=True)
class Scene:
    """Sources on training sky, the same in some surveys.

    patches: numbers. corner: of the reference token, rows and columns of the patch, in tokens.
    turn: of the views. offset: y, x from the token's centre in the turned view, arcsec. snr: by
    survey, [source, band].
    """

    patches: Int[np.ndarray, " source"]
    corner: Float[np.ndarray, "source 2"]
    turn: Int[np.ndarray, " source"]
    offset: Float[np.ndarray, "source 2"]
    snr: ByBand


class Implants:
    """Draws the implants of any step, from the seed and the step's number alone.

    surveys: those for which any are made: the PSF's width is known on some patch. None where the
    position term has no weight. together: whether surveys share patches, and so their sources.
    """

    def __init__(self, patches: Patches, settings: TrainConfig) -> None:
        self.patches, self.count, self.seed = patches, settings.position.sources, settings.seed
        self.broadest, self.dither = settings.position.broadest, settings.dither
        self.window = min(WINDOW, (patches.tokens + 2) // 2)
        self.surveys: list[str] = []
        self.together = False
        if not settings.position.weight:
            return
        widths = {survey: _widths(patches, survey) for survey in patches.surveys}
        self.fwhm = {survey: known for survey, known in widths.items() if known}
        self.surveys = list(self.fwhm)
        for survey in sorted(set(patches.surveys) - set(self.surveys)):
            log.warning("train.position: no width of a PSF of %s is known; left out", survey)
        if not self.surveys:
            return
        self.part = own_part(self.count, "train.position.sources")
        shared = set.intersection(*(set(known) for known in self.fwhm.values()))
        self.together = len(self.surveys) > 1 and bool(shared)
        self.where = {s: sorted(shared or self.fwhm[s]) for s in self.surveys}
        self.spectra = Spectra(patches, self.fwhm, sorted(shared))

    def draw(self, step: int) -> list[ImplantDraw]:
        """The sources in every survey; of those of all ranks, this one's."""
        if self.together:
            rng = np.random.default_rng([self.seed, step, 0, 1])
            scene = self._scene(rng, self.surveys)
            return [self._windows(step, survey, scene) for survey in self.surveys]
        drawn = []
        for survey in self.surveys:
            rng = np.random.default_rng([self.seed, step, 1 + self.surveys.index(survey), 2])
            drawn.append(self._windows(step, survey, self._scene(rng, [survey])))
        return drawn

    def _scene(self, rng: np.random.Generator, surveys: list[str]) -> Scene:
        """What is common to some surveys: where sources lie, and how bright they are."""
        pixels = tuple(self.patches.n[survey] for survey in surveys)
        chosen = rng.choice(self.where[surveys[0]], size=self.count)
        # Windows hold the tokens around the reference, and lie within a displaced grid.
        low, high = self.window - 1 - AROUND, self.patches.tokens - self.window
        token = rng.integers(low, high + 1, size=(self.count, 2))
        corner = token + [draw_phase(rng, pixels) for _ in range(self.count)]
        if self.dither:
            corner = corner + [draw_dither(rng, pixels, self.dither) for _ in range(self.count)]
        side = self.patches.store.token_arcsec
        known = {
            survey: np.isfinite([self.fwhm[survey][patch] for patch in chosen.tolist()])
            for survey in surveys
        }
        return Scene(
            patches=chosen,
            corner=corner,
            turn=rng.integers(8, size=self.count),
            offset=rng.uniform(-side, side, (self.count, 2)),
            snr=self.spectra.draw(rng, surveys, known),
        )

    def _windows(self, step: int, survey: str, scene: Scene) -> ImplantDraw:
        """Windows of one survey around a scene's sources, which lie anywhere in them: where a
        token lies in its window tells nothing of where its partner of another survey does."""
        number = self.patches.surveys.index(survey)
        rng = np.random.default_rng([self.seed, step, 1 + number, 1])
        token = rng.integers(AROUND, self.window - AROUND, size=(self.count, 2))
        n, patches = self.patches.n[survey], scene.patches.tolist()
        # The same token, as it lies in the window before it is turned.
        before = np.stack(
            [
                _before_turn(own, self.window, turn)
                for own, turn in zip(token, scene.turn.tolist(), strict=True)
            ]
        )
        corner = scene.corner - before
        widths = np.stack([self.fwhm[survey][patch] for patch in patches])
        # Every survey's seeing by itself: tokens are not to lean on how one goes with the other's.
        least, most = 1 - WIDTH_ERROR, max(1 + WIDTH_ERROR, self.broadest)
        widths = widths * rng.uniform(least, most, (self.count, 1))
        widths = np.where(np.isfinite(widths), widths, 1.0)
        correlation = [
            self.patches.correlation_within(patch, survey, DISC_OF_FWHM * wide)
            for patch, wide in zip(patches, widths, strict=True)
        ]
        own = range(self.count)[self.part]
        codes = self.patches.codes([patches[k] for k in own], survey)
        margin = MARGIN if self.dither else 0
        windows = [
            cut(planes, corner[k], self.window, n, int(scene.turn[k]), margin)
            for k, planes in zip(own, codes, strict=True)
        ]
        fraction = np.stack([turned_fraction(corner[k], n, int(scene.turn[k])) for k in own])
        return ImplantDraw(
            survey,
            {name: torch.from_numpy(np.stack([w[name] for w in windows])) for name in windows[0]},
            token=torch.from_numpy(token[self.part]),
            offset=self._own(scene.offset),
            snr=self._own(scene.snr[survey]),
            correlation=self._own(np.stack(correlation)),
            token_correlation=self._own(
                np.stack([self.patches.correlation[survey][patch] for patch in patches])
            ),
            fwhm=self._own(widths),
            fraction=torch.from_numpy(fraction) if self.dither else None,
        )

    def _own(self, values: Float[np.ndarray, "source _"]) -> Float32[Tensor, "own _"]:
        return torch.from_numpy(values[self.part].astype(np.float32))

    def show(self, draw: ImplantDraw, device: torch.device) -> Implanted:
        """The windows with their sources, made on the device."""
        inputs = self.patches.inputs(draw.codes, draw.survey, device, draw.fraction)
        signal, valid, depth = inputs.unbind(dim=2)
        grid = self.patches.store.grid_arcsec(draw.survey)
        centre = (draw.token.to(device) + 0.5) * self.patches.store.token_arcsec
        snr, fwhm, offset = (t.to(device) for t in (draw.snr, draw.fwhm, draw.offset))
        amplitude = snr * draw.correlation.to(device)
        profile = point_sources(offset + centre, fwhm, grid, signal.shape[-1])
        flux = signal.sinh() + amplitude[:, :, None, None] * profile
        added = torch.stack([asinh(flux), valid, depth], dim=2)
        # A band without a pixel tells nothing of where a source lies.
        seen = snr * (valid.flatten(2).amax(dim=2) > 0)
        error = (seen / (GAUSSIAN * fwhm)).square().sum(dim=1).rsqrt()
        floor = PIXELS_FLOOR * grid
        shown = torch.where(valid[:, :, None] > 0, added, 0.0)
        return Implanted(
            shown,
            draw.token.to(device),
            offset,
            (error.clamp(max=self.patches.store.token_arcsec).square() + floor**2).sqrt(),
            token_snr(shown, draw.token_correlation.to(device), self.patches.n[draw.survey]),
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


def _before_turn(token: Int[np.ndarray, "2"], side: int, turn: int) -> Int[np.ndarray, "2"]:
    """Row and column, in a square of tokens, of what a turn brings to `token`."""
    places = turn_plane(np.arange(side * side).reshape(side, side), turn)
    return np.array(divmod(int(places[tuple(token)]), side))


def _widths(patches: Patches, survey: str) -> dict[int, Float32[np.ndarray, " band"]]:
    """FWHM of the bands by patch, arcsec; NaN where there is no pixel, or none is known."""
    widths = {}
    for number in patches.covered[survey]:
        known = np.array(patches.store[number][survey].psf_fwhm_arcsec, np.float32)
        known[~patches.present[survey][number]] = np.nan
        if np.isfinite(known).any():
            widths[number] = known
    return widths
