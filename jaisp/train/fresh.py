"""A fresh model for the surveys of a store, and what it is told of their sky."""

import numpy as np
import torch

from jaisp.config.model import ModelConfig
from jaisp.model import Architecture, Model, SurveyPixels
from jaisp.model.moments import Moments
from jaisp.store.reader import Store
from jaisp.train.patches import Patches


def new_model(
    store: Store, settings: ModelConfig, noise: dict[str, np.ndarray], seed: int
) -> Model:
    """A model for a store's surveys, fresh by `seed`; `noise` is typical of each band, nJy."""
    surveys = {
        survey: SurveyPixels(
            bands=store.bands(survey),
            grid_arcsec=store.grid_arcsec(survey),
            pixels_per_token=store.pixels_per_token(survey),
        )
        for survey in store.surveys
    }
    torch.manual_seed(seed)
    model = Model(
        Architecture(
            surveys=surveys,
            token_arcsec=store.token_arcsec,
            dimensions=settings.dimensions,
            size=settings.size,
        )
    )
    for survey, typical in noise.items():
        model.typical_noise(survey).copy_(torch.from_numpy(typical))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device)


def measure_sky(model: Model, patches: Patches, most: int = 8) -> None:
    """Tell fresh encoders what smoothing makes of their surveys' noise, and how wide the PSFs are,
    from some patches."""
    for survey, covered in patches.covered.items():
        if not covered:
            continue
        places = np.linspace(0, len(covered) - 1, min(most, len(covered))).astype(int)
        numbers = [covered[place] for place in places]
        codes = patches.codes(numbers, survey)
        batch = {name: torch.stack([own[name] for own in codes]) for name in codes[0]}
        moments = model.get_submodule(f"encoders.{survey}.moments")
        assert isinstance(moments, Moments)
        moments.scatter.copy_(moments.measure(patches.inputs(batch, survey, model.device)))
        fwhm = np.array([patches.store[number][survey].psf_fwhm_arcsec for number in numbers])
        if np.isfinite(fwhm).any():
            moments.begin(torch.from_numpy(fwhm).nanmedian(dim=0).values.float())
