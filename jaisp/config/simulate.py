"""Config section of the simulated sky."""

from pydantic import Field

from jaisp.config.section import Section


class SimulateConfig(Section):
    """What is on the simulated sky, and how it is cut into tiles."""

    seed: int = Field(1, ge=0, description="Draws the sky and the noise; same seed, same bytes.")
    sources: bool = Field(
        True, description="False: no galaxies and no stars, a field of zero flux."
    )
    galaxies_per_arcmin2: float = Field(
        130.0,
        ge=0.0,
        le=1000.0,
        description="Galaxies per square arcmin; the magnitude limit follows (130: i < 26.5).",
    )
    stars_per_arcmin2: float = Field(
        3.5, ge=0.0, le=1000.0, description="Stars per square arcmin, 15 < i < 25.5."
    )
    exposure: float = Field(
        1.0, gt=0.0, description="Exposure time relative to the survey's; 4 halves the noise."
    )
    seeing: float = Field(
        1.0, ge=0.5, le=3.0, description="FWHM on the ground relative to the survey's median."
    )
    astrometric_offset_mas: float = Field(
        15.0,
        ge=0.0,
        description="RMS an axis of a tile's offset on the ground; a third of it in space.",
    )
    tiles_per_side: int = Field(2, ge=1, le=50, description="Tiles along a side of a region.")
    overlap_arcsec: float = Field(60.0, ge=0.0, description="Overlap of neighbouring tiles.")
    rotation_deg: float = Field(
        3.0,
        ge=0.0,
        le=45.0,
        description="Each tile is turned by an angle of its own, up to this either way.",
    )
