"""A simulated sky as an archive would serve it: FITS tiles, with the truth beside them."""

from jaisp.simulate.stage import simulate

__all__ = ["simulate"]
