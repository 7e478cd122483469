"""Tiles to patches: one resampling, with noise, mask and coverage, in nJy a pixel."""

from jaisp.warp.cell import warp

__all__ = ["warp"]
