"""Config sections that say which sky, in what pieces, and which of it is held out."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaisp.config.section import Section

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Region(Section):
    """A rectangle of sky on the tangent plane at its centre, north up."""

    ra: float = Field(ge=0.0, lt=360.0, description="Right ascension of the centre, degrees.")
    dec: float = Field(ge=-90.0, le=90.0, description="Declination of the centre, degrees.")
    width_arcmin: float = Field(gt=0.0, le=7200.0, description="East–west size, arcmin.")
    height_arcmin: float = Field(gt=0.0, le=7200.0, description="North–south size, arcmin.")


class Moc(Section):
    """Sky given by a multi-order coverage map (IVOA MOC, FITS)."""

    moc: Path = Field(description="The MOC file; a relative path starts from `data`.")


class PatchConfig(Section):
    """The square of sky that is cut from every survey."""

    arcsec: float = Field(51.2, gt=0.0, description="Side of a patch; a multiple of the token.")


class SplitConfig(Section):
    """Which patches train, which validate and which are held out for every figure."""

    test: Fraction | list[Region] = Field(
        0.2, description="Held-out share of the sky (stripes of patches), or regions of it."
    )
    validation: Fraction = Field(0.15, description="Share of the sky watched while training.")
    seed: int = Field(1, ge=0, description="Chooses which stripes or cells are held out.")


CellOrder = Literal["auto"] | Annotated[int, Field(ge=3, le=10)]
