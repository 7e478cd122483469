"""The frozen encoders against truth, catalogue and controls: results/RUN/metrics.json and plots."""

from jaisp.evaluate.stage import evaluate_part, gather_evaluated, measure

__all__ = ["evaluate_part", "gather_evaluated", "measure"]
