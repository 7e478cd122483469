"""Training patches, coded as the store has them, in memory when they fit."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from jaisp.model.inputs import network_inputs
from jaisp.progress import track
from jaisp.store.batches import decode_planes
from jaisp.store.correlation import DISC_OF_SQUARE, correlation_within
from jaisp.store.dataset import MatchedViews
from jaisp.store.layout import UNUSABLE
from jaisp.store.reader import Store
from jaisp.train.detect import count_sources
from jaisp.train.dither import MARGIN, displaced, trimmed
from jaisp.train.weight import token_snr

CACHED_PIXELS = 2**17

# One survey's planes, as `MatchedViews` gives them: small integers and their scales.
Codes = dict[str, Tensor]


class Patches:
    """The patches of a split, and how much each of their tokens tells.

    `numbers` are the store's patch numbers; `covered[survey]` those that the survey covers;
    `present[survey][number]` which bands have any pixel there, and `snr[survey][number]` the S/N
    of each token, float32 [row, column]; `sources[survey][number]` how many sources are detected
    on each, where `detect` asks for it. `correlation[survey][number]`, float32 [band], is by how
    much the noise of a token's sum exceeds that of white noise. `resident`: whether memory_gib
    holds all of them.
    """

    def __init__(
        self,
        store: Store,
        numbers: Int[np.ndarray, " patch"],
        typical_noise: dict[str, Float32[np.ndarray, " band"]],
        memory_gib: float,
        description: str,
        detect: bool = False,
    ) -> None:
        self.store = store
        self.numbers = [int(number) for number in numbers]
        self.surveys = store.surveys
        self.tokens = round(store.patch_arcsec / store.token_arcsec)
        self.n = {survey: store.pixels_per_token(survey) for survey in self.surveys}
        self.covered: dict[str, list[int]] = {survey: [] for survey in self.surveys}
        self.present: dict[str, dict[int, np.ndarray]] = {survey: {} for survey in self.surveys}
        self.snr: dict[str, dict[int, np.ndarray]] = {survey: {} for survey in self.surveys}
        self.sources: dict[str, dict[int, np.ndarray]] = {survey: {} for survey in self.surveys}
        self.correlation: dict[str, dict[int, np.ndarray]] = {s: {} for s in self.surveys}
        self.typical_noise = {s: torch.from_numpy(noise) for s, noise in typical_noise.items()}
        seen = {s: (store.coverage(s)[numbers] > 0).any(axis=1) for s in self.surveys}
        self._views = {s: MatchedViews(store, numbers, [s]) for s in self.surveys if seen[s].any()}
        self._places = {
            survey: {int(number): place for place, number in enumerate(views.numbers)}
            for survey, views in self._views.items()
        }
        self.resident = sum(views.gib() for views in self._views.values()) <= memory_gib
        for views in self._views.values():
            views.resident = self.resident
        for number in track(self.numbers, description):
            for survey, places in self._places.items():
                if number in places:
                    self._look_at(number, survey, detect)

    def __len__(self) -> int:
        return len(self.numbers)

    def codes(self, numbers: Sequence[int], survey: str) -> list[Codes]:
        """Whole patches in one survey, from memory or, all at a time, from the store."""
        places = [self._places[survey][number] for number in numbers]
        return [sample["views"][survey] for sample in self._views[survey].__getitems__(places)]

    def shared(self, surveys: Sequence[str]) -> list[int]:
        """Patches that all of `surveys` cover."""
        covered = [set(self.covered[survey]) for survey in surveys]
        return sorted(set.intersection(*covered))

    def inputs(
        self,
        codes: Codes,
        survey: str,
        device: torch.device,
        fraction: Float32[Tensor, "sample 2"] | None = None,
    ) -> Float32[Tensor, "sample band 3 y x"]:
        """What networks see of a batch of codes [sample, band, y, x], decoded on the device.

        fraction: of a pixel, in rows and in columns, by which each sample is displaced; the codes
        then have `jaisp.train.dither.MARGIN` pixels more on every side.
        """
        sent = {name: tensor.to(device) for name, tensor in codes.items()}
        moves = None if fraction is None else fraction.to(device)
        typical = self.typical_noise[survey].to(device)
        samples, bands, y, x = sent["flux"].shape
        margin = 0 if moves is None else MARGIN
        inputs = torch.empty((samples, bands, 3, y - 2 * margin, x - 2 * margin), device=device)
        # A few after others: what is computed on the way stays in the processor's cache.
        few = max(1, CACHED_PIXELS // (bands * y * x))
        each = few if device.type == "cpu" else samples
        for part in (slice(first, first + each) for first in range(0, samples, each)):
            some = {name: tensor[part] for name, tensor in sent.items()}
            flux = decode_planes(some["flux"], some["scale"])
            noise, mask = decode_planes(some["noise"], some["noise_scale"]), some["mask"]
            if moves is not None:
                # Noise planes are smooth over half a pixel, and stay.
                flux = displaced(flux, _usable(flux, noise, mask), moves[part])
                noise, mask = trimmed(noise), trimmed(mask)
            inputs[part] = network_inputs(flux, noise, mask, typical)
        return inputs

    def correlation_within(
        self, number: int, survey: str, diameters: Float[np.ndarray, "*source band"]
    ) -> Float32[np.ndarray, "*source band"]:
        """Noise of a patch's sums within discs (arcsec) over that of white noise, by bands."""
        known = self.store.noise_correlation(self.store[number].cell, survey)
        found = correlation_within(known, diameters, self.store.grid_arcsec(survey))
        return found.astype(np.float32)

    def _look_at(self, number: int, survey: str, detect: bool) -> None:
        (codes,) = self.codes([number], survey)
        batch = {name: tensor[None] for name, tensor in codes.items()}
        inputs = self.inputs(batch, survey, torch.device("cpu"))
        self.covered[survey].append(number)
        self.present[survey][number] = (inputs[0, :, 1] > 0).any(dim=(1, 2)).numpy()
        width = np.full(inputs.shape[1], DISC_OF_SQUARE * self.store.token_arcsec)
        correlation = self.correlation_within(number, survey, width)
        self.correlation[survey][number] = correlation
        factors = torch.from_numpy(correlation)[None]
        self.snr[survey][number] = token_snr(inputs, factors, self.n[survey])[0].numpy()
        if detect:
            weight = 1 / self.typical_noise[survey]
            self.sources[survey][number] = count_sources(inputs[0], weight, self.n[survey])


def _usable(
    flux: Float32[Tensor, "sample band y x"], noise: Tensor, mask: Tensor
) -> Bool[Tensor, "sample band y x"]:
    return flux.isfinite() & (noise > 0) & ((mask & int(UNUSABLE)) == 0)


def measure_noise(
    store: Store, numbers: Int[np.ndarray, " patch"], most: int = 64
) -> dict[str, Float32[np.ndarray, " band"]]:
    """Typical background noise of each survey's bands, nJy: the median over some patches.

    A band without a valid pixel there gets 1.
    """
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int)
    found: dict[str, Float32[np.ndarray, " band"]] = {}
    for survey in store.surveys:
        medians = []
        for number in numbers[places]:
            if survey in (patch := store[int(number)]):
                noise = patch[survey].noise[:, ::8, ::8].reshape(len(store.bands(survey)), -1)
                valid = np.isfinite(noise) & (noise > 0)
                medians.append(
                    [
                        np.median(b[v]) if v.any() else np.nan
                        for b, v in zip(noise, valid, strict=True)
                    ]
                )
        table = np.array(medians, np.float32).reshape(-1, len(store.bands(survey)))
        found[survey] = np.array(
            [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 1.0 for c in table.T],
            np.float32,
        )
    return found
