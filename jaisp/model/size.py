"""How wide and deep a model is."""

from dataclasses import dataclass

COARSEST_ARCSEC = 0.4  # of the grids between pixels and tokens


@dataclass(frozen=True)
class Size:
    """Widths and depths of an encoder.

    vector: of a band. finest_arcsec: the first grid has positions at most so far apart. density:
    channels per arcsec between positions of a grid, so that a grid half as fine has twice as many.
    residual: blocks a grid. moments_arcsec, maps: likewise the finest grid of the moments that
    tokens are given, and of how many maps. fluxes: numbers made of fluxes about a token. width: of
    the tokens. context_arcsec: how far the trunk
    sees around a token, at least, whatever the tokens' size; attention_arcsec: how far a token
    attends in one layer.
    """

    vector: int
    finest_arcsec: float
    density: float
    residual: int
    moments_arcsec: float
    maps: int
    width: int
    heads: int
    fluxes: int = 32
    expansion: int = 2
    context_arcsec: float = 12.8
    attention_arcsec: float = 3.2

    def channels(self, grid_arcsec: float) -> int:
        """Channels of a grid between pixels and tokens, a multiple of eight."""
        return min(self.width, max(8, 8 * round(self.density * grid_arcsec / 8)))


SIZES = {
    "tiny": Size(16, 0.4, 60.0, residual=1, moments_arcsec=0.2, maps=4, width=128, heads=4),
    "small": Size(16, 0.2, 160.0, residual=1, moments_arcsec=0.1, maps=8, width=128, heads=4),
    "base": Size(
        32,
        0.1,
        320.0,
        residual=2,
        moments_arcsec=0.1,
        maps=16,
        width=384,
        context_arcsec=25.6,
        heads=6,
        expansion=4,
    ),
}
