"""The term that keeps positions: one linear map for all surveys tells where an implant lies.

docs/objective.md has the formula and what it is worth.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jaisp.train.implants import AROUND, Implanted
from jaisp.train.ranks import summed


class PositionHead(nn.Module):
    """A linear map from a shared token to the place of a source, y and x in tokens.

    It is the same for all surveys, so that their tokens tell positions in one frame. Only training
    knows it: it is no part of the model.
    """

    def __init__(self, dimensions: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.map = nn.Linear(dimensions, 2)

    def forward(self, tokens: Float[Tensor, "source dimension"]) -> Float[Tensor, "source 2"]:
        """Places from the token's centre, in tokens."""
        return self.map(tokens)


def position_term(
    told: Float[Tensor, "source 2"], implanted: Implanted, token_arcsec: float
) -> Tensor:
    """Mean over all ranks' sources and both axes of |told − true| / √(error · token).

    Between a plain mean, of which faint sources are all, and errors in units of what is possible,
    of which bright ones are all; an absolute value, as a source on top of a galaxy may be told
    wrong without end.
    """
    away = (told.float() * token_arcsec - implanted.offset).abs()
    total, count = summed(
        (away / (implanted.error * token_arcsec).sqrt()[:, None]).sum(),
        away.new_tensor(away.numel()),
    )
    return total / count


def around(
    grid: Float[Tensor, "source row column *dimension"], implanted: Implanted
) -> Float[Tensor, "source place *dimension"]:
    """What a grid of tokens has at every implant's reference token and around it, by rows."""
    steps = torch.arange(-AROUND, AROUND + 1, device=grid.device)
    rows, columns = (implanted.token[:, axis, None] + steps for axis in (0, 1))
    source = torch.arange(len(grid), device=grid.device)[:, None, None]
    return grid[source, rows[:, :, None], columns[:, None, :]].flatten(1, 2)


def reference(
    found: Float[Tensor, "source place dimension"],
) -> Float[Tensor, "source dimension"]:
    """The middle one of the tokens that `around` finds."""
    return found[:, found.shape[1] // 2]
