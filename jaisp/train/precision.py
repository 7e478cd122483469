"""How encoders are computed while training: their precision, and whether they are compiled."""

from contextlib import AbstractContextManager

import torch

from jaisp.config.train import TrainConfig
from jaisp.errors import UserError
from jaisp.model import Model

BACKEND = "inductor"
# Encoders share their code: each survey's, a teacher's, and each size of view is one version of it.
# Past torch's own limit of 8, encoders would silently run uncompiled.
MOST_VERSIONS = 64


def autocast(settings: TrainConfig, device: torch.device) -> AbstractContextManager:
    """The context for encoders: products and convolutions in `train.precision`.

    Weights, sums over tokens and every loss stay float32.
    """
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"
    )


def eager() -> AbstractContextManager:
    """The context in which compiled encoders run as written: for a few views of other sizes."""
    return torch.compiler.set_stance("force_eager")


def compile_encoders(model: Model, settings: TrainConfig, samples: int, crop: int) -> None:
    """Compile every encoder with the trunk, for batches of `samples` views of `crop` tokens a
    side, and run each once. Raises UserError where this machine can't.
    """
    torch._dynamo.config.recompile_limit = MOST_VERSIONS
    compiled = torch.compile(model.features, dynamic=False, backend=BACKEND)
    model.features = compiled  # type: ignore[method-assign]
    for survey, encoder in model.encoders.items():
        about = model.config.surveys[survey]
        side, bands = crop * about.pixels_per_token, len(about.bands)
        inputs = torch.zeros(samples, bands, 3, side, side, device=model.device)
        # As in a step, or it would be compiled anew there; a teacher's has no gradients.
        learns = any(parameter.requires_grad for parameter in encoder.parameters())
        try:
            with torch.set_grad_enabled(learns), autocast(settings, model.device):
                numbers = torch.arange(bands, device=model.device)
                tokens = model.features(survey, inputs, numbers)["shared"]
            if learns:
                tokens.float().sum().backward()
        except Exception as error:  # compilers and their back ends raise many kinds
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"train.compile: torch.compile failed on the encoder of {survey} "
                f"({type(error).__name__}: {reason}); set it to false"
            ) from error
    model.zero_grad(set_to_none=True)
