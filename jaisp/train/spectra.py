"""How bright sources of training sky are in every band of every survey, for sources to be added."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn.functional import avg_pool2d

from jaisp.store.correlation import DISC_OF_FWHM
from jaisp.train.patches import Patches
from jaisp.train.watch import peaks

LOWEST_SNR, HIGHEST_SNR = 5.0, 300.0  # in one of the surveys, by chance
BRIGHTEST_SNR = 1000.0  # in any other
FEWEST, MOST_PATCHES = 20, 64
APERTURE = 3  # tokens along the side of the square that fluxes are of

ByBand = dict[str, Float[np.ndarray, "source band"]]
Widths = Mapping[str, Mapping[int, Float[np.ndarray, " band"]]]


class Spectra:
    """S/N by band and survey of the sources that all of `surveys` see on some patches.

    widths: FWHM of the bands by survey and patch, arcsec. A source's S/N is that of a point source
    of the flux in a square about it. snr[survey]: [source, band].
    """

    def __init__(self, patches: Patches, widths: Widths, numbers: Sequence[int]) -> None:
        self.surveys = list(widths)
        found: dict[str, list[np.ndarray]] = {survey: [] for survey in self.surveys}
        step = max(1, -(-len(numbers) // MOST_PATCHES))
        for number in numbers[::step]:
            seen = np.minimum.reduce([patches.snr[survey][number] for survey in self.surveys])
            sources = peaks(np.nan_to_num(seen))
            for survey in self.surveys:
                own = _as_points(patches, survey, number, widths[survey][number])
                found[survey].append(own[:, sources].T)
        bands = {s: len(patches.store.bands(s)) for s in self.surveys}
        self.snr = {s: np.concatenate([np.zeros((0, bands[s])), *found[s]]) for s in self.surveys}

    def draw(
        self,
        rng: np.random.Generator,
        surveys: Sequence[str],
        known: Mapping[str, Bool[np.ndarray, "source band"]],
    ) -> ByBand:
        """S/N of sources in some surveys, 0 in bands that aren't `known`: of one survey, by
        chance, even in logarithm. Where training sky has too few sources, bands share it at
        random."""
        count = len(known[surveys[0]])
        if len(self.snr[surveys[0]]) >= FEWEST:
            chosen = rng.integers(len(self.snr[surveys[0]]), size=count)
            shapes = {survey: self.snr[survey][chosen] for survey in surveys}
        else:
            shapes = {s: np.sqrt(rng.dirichlet(np.ones(known[s].shape[1]), count)) for s in surveys}
        shapes = {survey: shape * known[survey] for survey, shape in shapes.items()}
        levels = np.array([np.linalg.norm(shapes[survey], axis=1) for survey in surveys])
        wanted = np.exp(rng.uniform(math.log(LOWEST_SNR), math.log(HIGHEST_SNR), count))
        reference = levels[rng.integers(len(surveys), size=count), np.arange(count)]
        most = np.maximum(levels.max(axis=0), 1e-6)
        scale = np.minimum(wanted / np.maximum(reference, 1e-6), BRIGHTEST_SNR / most)
        return {survey: shape * scale[:, None] for survey, shape in shapes.items()}


def _as_points(
    patches: Patches, survey: str, number: int, fwhm: Float[np.ndarray, " band"]
) -> Float[np.ndarray, "band row column"]:
    """S/N that a point source of the flux about each token would have."""
    (codes,) = patches.codes([number], survey)
    batch = {name: tensor[None] for name, tensor in codes.items()}
    inputs = patches.inputs(batch, survey, torch.device("cpu"))
    n = patches.n[survey]
    side = APERTURE * n
    flux = avg_pool2d(inputs[0, :, 0].sinh(), side, stride=n, padding=n) * side**2
    wide = np.where(np.isfinite(fwhm), fwhm, 1.0)
    pixels = wide / patches.store.grid_arcsec(survey)
    # Of a Gaussian: 4π σ² pixels of noise.
    noise = np.sqrt(4 * math.pi) * pixels / math.sqrt(8 * math.log(2))
    noise = noise * patches.correlation_within(number, survey, DISC_OF_FWHM * wide)
    return flux.clamp(min=0).numpy() / noise[:, None, None] * np.isfinite(fwhm)[:, None, None]
