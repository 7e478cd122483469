"""The frozen encoders against truth, catalogue and controls: results/RUN/metrics.json and plots."""
