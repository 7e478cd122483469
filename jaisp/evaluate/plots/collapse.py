"""The plot of collapse: how the variance of tokens is spread over directions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaisp.evaluate.plots.style import COLOURS, Plot, panels


def collapse_plots(spectra: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """spectra: by survey and encoder, eigenvalues of the covariance of source tokens."""
    return [Plot("spectrum", spectrum, spectra)] if spectra else []


def spectrum(surveys: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Eigenvalues of the covariance of source tokens, as shares of their sum."""
    figure, axes = panels(len(surveys))
    for axis, (survey, encoders) in zip(axes, surveys.items(), strict=False):
        for name, values in encoders.items():
            share = np.asarray(values) / max(np.sum(values), 1e-30)
            axis.plot(np.arange(1, len(share) + 1), share, color=COLOURS[name], label=name)
        axis.set(xscale="log", yscale="log", ylim=(1e-7, 1), xlabel="component", title=survey)
    axes[0].set_ylabel("share of the variance")
    axes[0].legend(fontsize=7)
    return figure
