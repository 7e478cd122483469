"""The encoders, and the model on disk."""

from jaisp.model.files import load_model, save_model
from jaisp.model.model import Architecture, Model, SurveyPixels, random_model

__all__ = ["Architecture", "Model", "SurveyPixels", "load_model", "random_model", "save_model"]
