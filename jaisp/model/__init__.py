"""The encoders, and the model on disk."""

from jaisp.model.files import load_model, save_model
from jaisp.model.model import Architecture, Model, Prepared, SurveyPixels, random_model

__all__ = [
    "Architecture",
    "Model",
    "Prepared",
    "SurveyPixels",
    "load_model",
    "random_model",
    "save_model",
]
