"""Pieces of sky: cells with one tangent plane each, the patches on them, and the split."""

from jaisp.sky.coverage import in_region
from jaisp.sky.division import ONE_CELL_ARCMIN, cells
from jaisp.sky.plane import (
    ARCSEC,
    Cell,
    footprint,
    given_wcs,
    patch_wcs,
    plane_radec,
    plane_wcs,
    plane_xy,
)
from jaisp.sky.split import MANY_CELLS, NONE, SPLITS, TEST, TRAIN, VALIDATION, splits

__all__ = [
    "ARCSEC",
    "MANY_CELLS",
    "NONE",
    "ONE_CELL_ARCMIN",
    "SPLITS",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Cell",
    "cells",
    "footprint",
    "given_wcs",
    "in_region",
    "patch_wcs",
    "plane_radec",
    "plane_wcs",
    "plane_xy",
    "splits",
]
