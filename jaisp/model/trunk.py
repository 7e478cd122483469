"""The trunk: from what every survey's encoder finds to the shared tokens."""

import math

import torch
from torch import Tensor, nn

from jaisp.model.attention import LocalAttention
from jaisp.model.blocks import ChannelNorm, TokenBlock
from jaisp.model.moments import SHARP, WINDOWS
from jaisp.model.peaks import PLACE, SHAPE
from jaisp.model.size import Size

# Of what was measured, what tokens keep as it is: places and shapes of peaks.
KEPT = (PLACE + SHAPE) * len(WINDOWS) * len(SHARP)
FEWEST = 8  # dimensions for each that is kept


def kept_dimensions(dimensions: int) -> int:
    """How many of a token's dimensions, the last ones, are nothing but what was measured."""
    return min(KEPT, math.ceil(dimensions / FEWEST))


class Trunk(nn.Module):
    """Convolutions and attention among neighbouring tokens, the same for all surveys.

    What was measured also goes past it, so that positions and brightness stay as linear in a token
    as they were found. The last few dimensions are nothing but places and shapes of peaks: a map
    that reads places off dimensions to which the trunk adds what lies around has to learn to cancel
    all of that. All have the same weights whatever the survey: what encoders find alike becomes
    alike tokens.
    """

    def __init__(self, size: Size, measured: int, token_arcsec: float, dimensions: int) -> None:
        super().__init__()
        self.measured = nn.Conv2d(measured, size.width, 1)
        reach = max(1, round(size.attention_arcsec / token_arcsec))
        # What lies around tells one faint source from another: small tokens take more layers.
        layer_arcsec = (2 * TokenBlock.REACH + reach) * token_arcsec
        layers = math.ceil(size.context_arcsec / layer_arcsec - 1e-6)
        self.blocks = nn.Sequential()
        for _ in range(layers):
            self.blocks.append(TokenBlock(size.width, size.expansion))
            self.blocks.append(TokenBlock(size.width, size.expansion))
            self.blocks.append(LocalAttention(size.width, size.heads, reach, token_arcsec))
        self.kept = kept_dimensions(dimensions)
        self.project = nn.Sequential(
            ChannelNorm(size.width),
            nn.Conv2d(size.width, 2 * size.width, 1),
            nn.GELU(),
            nn.Conv2d(2 * size.width, dimensions - self.kept, 1),
        )
        self.past = nn.Conv2d(measured, dimensions - self.kept, 1)
        self.keep = nn.Conv2d(self.kept, self.kept, 1, bias=False)
        nn.init.dirac_(self.keep.weight)  # to begin with, as they are
        self.reach_arcsec = layers * layer_arcsec

    def forward(self, what: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens before the projector [sample, width, row, column], and shared ones [sample,
        dimension, row, column], of what an encoder finds."""
        token = self.blocks(what + self.measured(measured))
        with torch.autocast(what.device.type, enabled=False):
            # Half precision has no room for a hundredth of a token.
            past, kept = self.past(measured), self.keep(measured[:, : self.kept])
        return token, torch.cat([self.project(token) + past, kept], dim=1)
