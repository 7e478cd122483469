"""Signs of collapse, and retrieval on validation sky, while training goes on."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from jaisp.model import Model
from jaisp.train.objective import covariance_matrix, shares
from jaisp.train.patches import Patches
from jaisp.train.views import cut
from jaisp.train.weight import SOURCE_SNR

SHIFT = 4


def spread(
    tokens: Float[Tensor, "token dimension"], weight: Float[Tensor, " token"]
) -> dict[str, float]:
    """How many dimensions are in use by the tokens of all ranks.

    participation_ratio: (Σλ)² / Σλ² of the covariance. rankme: exp of the entropy of the singular
    values (Garrido et al. 2023). smallest_std: of any dimension.
    """
    covariance = covariance_matrix(tokens.detach().float(), shares(weight.float()))
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0)
    share = values.sqrt() / values.sqrt().sum() + 1e-7
    return {
        "participation_ratio": float(values.sum() ** 2 / values.square().sum()),
        "rankme": float(torch.exp(-(share * share.log()).sum())),
        "smallest_std": float(covariance.diagonal().clamp(min=0).sqrt().min()),
    }


@torch.inference_mode()
def retrieval(model: Model, patches: Patches, surveys: tuple[str, str]) -> tuple[float, int]:
    """Top-1 of source tokens between two surveys, mean of both ways, and the number of tokens.

    The views are cropped a few tokens apart; similarity is the cosine of tokens less their mean.
    """
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    shift = min(SHIFT, patches.tokens // 4)
    crop = patches.tokens - shift
    for number in patches.shared(surveys):
        snr = np.minimum(*(patches.snr[survey][number] for survey in surveys))
        sources = peaks(np.nan_to_num(snr))[shift:crop, shift:crop]
        for side, survey in enumerate(surveys):
            (codes,), corner = patches.codes([number], survey), np.array([side, side]) * shift
            view = cut(codes, corner, crop, patches.n[survey], 0)
            batch = {name: torch.from_numpy(values[None]) for name, values in view.items()}
            inputs = patches.inputs(batch, survey, model.device)
            bands = torch.arange(inputs.shape[1], device=model.device)
            tokens = model.in_frame(model.features(survey, inputs, bands)["shared"])
            start = shift * (1 - side)
            end = start + crop - shift
            found[side].append(tokens[0, :, start:end, start:end][:, torch.from_numpy(sources)].T)
    if not found[0]:
        return float("nan"), 0
    first, second = (torch.cat(side) for side in found)
    first, second = (torch.nn.functional.normalize(t - t.mean(0), dim=1) for t in (first, second))
    right = torch.arange(len(first), device=model.device)
    similarity = first @ second.T
    hits = [(similarity.argmax(dim=axis) == right).float().mean() for axis in (0, 1)]
    return float((hits[0] + hits[1]) / 2) if len(right) else float("nan"), len(right)


def peaks(snr: Float[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    """Tokens brighter than their neighbours and than SOURCE_SNR."""
    padded = np.pad(snr, 1)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))
    return (snr == around) & (snr > SOURCE_SNR)
