"""What pairs of tokens count in the objective: empty sky next to nothing, a source about once."""

import torch
from jaxtyping import Bool, Float32
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

SOURCE_SNR = 5.0
FAINTEST_PEAK = 3.0  # S/N of a token that may be a source's brightest


def token_snr(
    inputs: Float32[Tensor, "sample band plane y x"],
    correlation: Float32[Tensor, "sample band"],
    n: int,
) -> Float32[Tensor, "sample row column"]:
    """S/N of the flux in each token's square of n × n pixels: bands in quadrature, those below
    zero left out.

    inputs: as `network_inputs` gives them. correlation: noise of such sums over that of white
    noise. NaN for tokens of which no band has half of the pixels.
    """
    signal, valid = inputs[:, :, 0], inputs[:, :, 1]
    count = avg_pool2d(valid, n) * n * n
    total = avg_pool2d(signal.sinh(), n) * n * n
    noise = count.clamp(min=1).sqrt() * correlation[:, :, None, None]
    band_snr = total.clamp(min=0) / noise
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


def of_wings(
    snr: Float32[Tensor, "sample row column"], seen: Bool[Tensor, "sample row column"]
) -> Bool[Tensor, "sample row column"]:
    """Tokens that are no source's brightest: one beside them is brighter, or they are empty.

    snr: of the view that sees a token worse. seen: tokens that both views show; no others are
    compared.
    """
    known = torch.where(seen, snr.nan_to_num(-1.0), -1.0)
    brightest = max_pool2d(known[:, None], 3, stride=1, padding=1)[:, 0]
    return (known < brightest) | (known < FAINTEST_PEAK)
