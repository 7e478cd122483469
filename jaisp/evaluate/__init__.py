"""The frozen encoders against catalogue and controls: results/RUN/metrics.json and plots."""

from jaisp.evaluate.stage import evaluate, measure

__all__ = ["evaluate", "measure"]
