"""Training patches as networks see them, in memory when they fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from jaisp.model.inputs import network_inputs
from jaisp.progress import track
from jaisp.store.reader import Store

SOURCE_SNR = 5.0


@dataclass(frozen=True)
class Planes:
    """One patch in one survey.

    signal: asinh(flux / noise), NaN where missing. depth: log(noise / typical noise).
    """

    signal: Float16[np.ndarray, "band y x"]
    depth: Float16[np.ndarray, "band y x"]


class Patches:
    """The patches of a split, and how much each of their tokens tells.

    `numbers` are the store's patch numbers; `covered[survey]` those that the survey covers;
    `present[survey][number]` which bands have any pixel there, and `snr[survey][number]` the S/N
    of each token, float32 [row, column].
    """

    def __init__(
        self,
        store: Store,
        numbers: Int[np.ndarray, " patch"],
        typical_noise: dict[str, Float32[np.ndarray, " band"]],
        memory_gib: float,
        description: str,
    ) -> None:
        self.store = store
        self.numbers = [int(number) for number in numbers]
        self.surveys = store.surveys
        self.tokens = round(store.patch_arcsec / store.token_arcsec)
        self.n = {survey: store.pixels_per_token(survey) for survey in self.surveys}
        self.covered: dict[str, list[int]] = {survey: [] for survey in self.surveys}
        self.present: dict[str, dict[int, np.ndarray]] = {survey: {} for survey in self.surveys}
        self.snr: dict[str, dict[int, np.ndarray]] = {survey: {} for survey in self.surveys}
        self._typical_noise = typical_noise
        self._kept: dict[tuple[int, str], Planes] = {}
        keep = self._gib() <= memory_gib
        for number in track(self.numbers, description):
            for survey in store[number].surveys:
                inputs = self._inputs(number, survey)
                self.covered[survey].append(number)
                self.present[survey][number] = (inputs[:, 1] > 0).any(dim=(1, 2)).numpy()
                self.snr[survey][number] = token_snr(inputs[None], self.n[survey])[0].numpy()
                if keep:
                    self._kept[number, survey] = _packed(inputs)

    def __len__(self) -> int:
        return len(self.numbers)

    def planes(self, number: int, survey: str) -> Planes:
        """A patch in one survey, from memory or from the store."""
        return self._kept.get((number, survey)) or _packed(self._inputs(number, survey))

    def shared(self, surveys: Sequence[str]) -> list[int]:
        """Patches that all of `surveys` cover."""
        covered = [set(self.covered[survey]) for survey in surveys]
        return sorted(set.intersection(*covered))

    def _inputs(self, number: int, survey: str) -> Float32[Tensor, "band 3 y x"]:
        view = self.store[number][survey]
        flux, noise, mask = (
            torch.from_numpy(plane)[None] for plane in (view.flux, view.noise, view.mask)
        )
        return network_inputs(flux, noise, mask, torch.from_numpy(self._typical_noise[survey]))[0]

    def _gib(self) -> float:
        pixels = sum(
            len(self.store.bands(s)) * (self.tokens * self.n[s]) ** 2 for s in self.surveys
        )
        return len(self.numbers) * pixels * 4 / 2**30


def _packed(inputs: Float32[Tensor, "band 3 y x"]) -> Planes:
    signal = torch.where(inputs[:, 1] > 0, inputs[:, 0], torch.nan)
    return Planes(signal.half().numpy(), inputs[:, 2].half().numpy())


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


def token_snr(
    inputs: Float32[Tensor, "sample band plane y x"], n: int
) -> Float32[Tensor, "sample row column"]:
    """S/N of the flux in each token's square of n × n pixels: bands in quadrature, those below
    zero left out.

    inputs: as `network_inputs` gives them. NaN for tokens of which no band has half of the pixels.
    """
    signal, valid = inputs[:, :, 0], inputs[:, :, 1]
    count = avg_pool2d(valid, n) * n * n
    total = avg_pool2d(signal.sinh(), n) * n * n
    band_snr = total.clamp(min=0) / count.clamp(min=1).sqrt()
    snr = band_snr.square().sum(dim=1).sqrt()
    return torch.where((count >= n * n / 2).any(dim=1), snr, torch.nan)


def token_weight(
    first: Float32[Tensor, "*place"], second: Float32[Tensor, "*place"], sky_weight: float
) -> Float32[Tensor, "*place"]:
    """Weight of token pairs: from `sky_weight` for empty sky to 1 for what both views see well.

    first, second: S/N in each view; where either is NaN, not seen, the weight is 0.
    """
    poorer = torch.minimum(first, second)
    # Beyond 1e6 the weight is 1 in any case, and a fourth power would overflow.
    power = (poorer.clamp(max=1e6) / SOURCE_SNR) ** 4
    weight = sky_weight + (1 - sky_weight) * power / (1 + power)
    return weight.nan_to_num(0.0)
