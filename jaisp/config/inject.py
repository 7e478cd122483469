"""Config section of the skies with known answers."""

from pydantic import Field

from jaisp.config.section import Section


class InjectConfig(Section):
    """How many sources are injected, and where."""

    copies: int = Field(
        1,
        ge=0,
        le=99,
        description="Copies of each sky of point sources, with fresh positions and noise; 8 give "
        "the demo a thousand test sources for every figure, 0 makes no injected sky at all.",
    )
    spacing_arcsec: float = Field(
        6.4, ge=3.2, description="Side of the lattice whose nodes the sources lie near."
    )
    patches: int = Field(
        200,
        ge=4,
        description="Patches that hold sources at most, in squares of four, evenly over each "
        "split.",
    )
    seed: int = Field(1, ge=0, description="Of positions, colours and noise.")
