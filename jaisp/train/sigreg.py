"""SIGReg: tokens that are normally distributed along every direction, by a test on slices.

docs/objective.md has the formulas and their source.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jaisp.train.objective import Terms, aligned, shares
from jaisp.train.ranks import gathered, rank, summed

KNOTS, FARTHEST = 17, 3.0  # where characteristic functions are compared, from 0


def sigreg(
    first: Float[Tensor, "token dimension"],
    second: Float[Tensor, "token dimension"],
    weight: Float[Tensor, " token"],
    targets: Sequence[Tensor] | None = None,
    *,
    slices: int,
    tokens: int,
    seed: int,
    groups: Sequence[int] | None = None,
) -> Terms:
    """The terms of LeJEPA (Balestriero & LeCun 2025, arXiv:2511.08544) of weighted pairs.

    alignment   Σₙ wₙ |xₙ − yₙ|² / 4D: the mean square distance of both views from their mean
    normality   mean over `slices` random unit vectors a, and over both views, of the Epps–Pulley
                statistic of a·x

    The statistic is of `tokens` tokens, drawn by weight; of all of them, with their weights, where
    there are no more. `seed` draws tokens and slices: the same on all ranks. groups: sizes of what
    this rank's tokens consist of, one after another; every rank has as many groups. `targets` as
    for `information`.
    """
    first, second, weight = first.float(), second.float(), weight.float()
    share = shares(weight)
    pairs = aligned(first, second, targets)
    apart = summed(*(share @ (x - y).square() for x, y in pairs))
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the CPU, so that they are the same on every device.
    directions = torch.randn(first.shape[1], slices, generator=generator).to(first.device)
    directions = directions / directions.norm(dim=0)
    place, share, count = draw_tokens(share, tokens, generator, groups)
    views = [view[place] @ directions for view in (first, second)]
    return Terms(
        alignment=torch.stack([term.mean() for term in apart]).mean() / 4,
        normality=torch.stack([epps_pulley(view, share, count).mean() for view in views]).mean(),
    )


def epps_pulley(
    values: Float[Tensor, "token slice"], share: Float[Tensor, " token"], count: float
) -> Float[Tensor, " slice"]:
    """How far from N(0, 1) the values of each slice are, over all ranks (Epps & Pulley 1983).

    count · ∫ |φ(t) − exp(−t²/2)|² exp(−t²/2) dt over |t| ≤ 3, φ(t) = Σ share · exp(itx): by the
    trapezoid rule on 17 knots of [0, 3], twice. `share` sums to one over all ranks.
    """
    knots = torch.linspace(0, FARTHEST, KNOTS, device=values.device)
    normal = torch.exp(-knots.square() / 2)
    rule = torch.full_like(knots, 2 * FARTHEST / (KNOTS - 1))
    rule[[0, -1]] /= 2
    angles = values[:, :, None] * knots
    even, odd = summed(
        *(torch.einsum("n,nsk->sk", share, wave) for wave in (angles.cos(), angles.sin()))
    )
    return count * ((even - normal).square() + odd.square()) @ (rule * normal)


@torch.no_grad()
def draw_tokens(
    share: Float[Tensor, " token"],
    most: int,
    generator: torch.Generator,
    groups: Sequence[int] | None = None,
) -> tuple[Int[Tensor, " drawn"], Float[Tensor, " drawn"], float]:
    """Which of this rank's tokens a test is made of, their shares, and how many tokens it counts.

    `most` are drawn from all ranks' tokens with chances in proportion to `share`, one from each
    of as many equal steps of its running sum: a heavy token can come twice, and the share of each
    is then 1 / most. No more tokens than that are all taken, and count as 1 / Σ share². The sum
    runs over the first group of all ranks, then the second: in one order, however many ranks.
    """
    everywhere = gathered(share.double().cpu())
    if sum(map(len, everywhere)) <= most:
        every = torch.arange(len(share), device=share.device)
        return every, share, 1 / float(torch.cat(everywhere).square().sum())
    sizes = [own.tolist() for own in gathered(torch.tensor(groups or [len(share)]))]
    parts = [part.split(own) for part, own in zip(everywhere, sizes, strict=True)]
    chances = torch.cat([part for of_group in zip(*parts, strict=True) for part in of_group])
    edges = chances.cumsum(0)
    within = torch.rand(most, generator=generator, dtype=torch.float64)
    steps = (torch.arange(most) + within) / most * edges[-1]
    drawn = torch.searchsorted(edges, steps, right=True).clamp(max=len(chances) - 1)
    found, before, start = [], 0, 0
    for of_ranks in zip(*sizes, strict=True):
        for number, size in enumerate(of_ranks):
            if number == rank():
                own = drawn[(drawn >= start) & (drawn < start + size)]
                found.append(own - start + before)
                before += size
            start += size
    place = torch.cat(found)
    return place.to(share.device), torch.full((len(place),), 1 / most).to(share), float(most)
