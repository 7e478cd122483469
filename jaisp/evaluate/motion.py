"""How a patch has moved, from how far each of its sources seems to have moved.

A patch is displaced and turned about its centre. What a source says of that is a shrunken and
noisy measure of its own displacement; how shrunken and how noisy at which S/N is learnt on
training sky, and patches are solved for by robust least squares with these weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from jaisp.evaluate.scatter import scatter

A_BIN = 150  # sources, at least, that tell what S/N a source can be trusted at
MOST_BINS = 8
HUBER = 2.0  # residuals beyond this many σ count less (Huber 1964)
ITERATIONS = 12
MOST_GAIN = 1.5
FEWEST_PATCHES = 5
SIGNIFICANT = 3.0  # standard errors
FLOOR = 1e-6


@dataclass(frozen=True)
class Moves:
    """Displacements of sources, as somebody measured them.

    patch: an index into the patches. place: from the patch's centre, arcsec west and north.
    moved: mas west and north. snr: of the source.
    """

    patch: Int[np.ndarray, " source"]
    place: Float[np.ndarray, "source 2"]
    moved: Float[np.ndarray, "source 2"]
    snr: Float[np.ndarray, " source"]

    def part(self, chosen: Bool[np.ndarray, " source"]) -> "Moves":
        """Some of the sources."""
        return Moves(self.patch[chosen], self.place[chosen], self.moved[chosen], self.snr[chosen])


@dataclass(frozen=True)
class Motion:
    """shift: mas west and north. turn: mas per arcsec from the centre (milliradians),
    counter-clockwise from +x to +y; one of each a patch."""

    shift: Float[np.ndarray, "patch 2"]
    turn: Float[np.ndarray, " patch"]

    def part(self, chosen: Bool[np.ndarray, " patch"] | Int[np.ndarray, " kept"]) -> "Motion":
        """Some of the patches, in an order."""
        return Motion(self.shift[chosen], self.turn[chosen])

    def at(
        self, patch: Int[np.ndarray, " source"], place: Float[np.ndarray, "source 2"]
    ) -> Float[np.ndarray, "source 2"]:
        """Displacement, mas, of sources at a place (arcsec) of a patch."""
        angle = self.turn[patch] / 1000
        x, y = place.T
        turned = np.stack(
            [
                (np.cos(angle) - 1) * x - np.sin(angle) * y,
                np.sin(angle) * x + (np.cos(angle) - 1) * y,
            ],
            axis=1,
        )
        return self.shift[patch] + 1000 * turned


@dataclass(frozen=True)
class Trust:
    """What a source's answer is worth: answer = slope · displacement + offset ± sigma.

    log_snr: at which slope and sigma are known. offset: mas.
    """

    log_snr: Float[np.ndarray, " bin"]
    slope: Float[np.ndarray, " bin"]
    sigma: Float[np.ndarray, " bin"]
    offset: Float[np.ndarray, " 2"]

    def at(
        self, snr: Float[np.ndarray, " source"]
    ) -> tuple[Float[np.ndarray, " source"], Float[np.ndarray, " source"]]:
        """Slope and sigma of sources of an S/N."""
        where = np.log(snr)
        return (
            np.interp(where, self.log_snr, self.slope),
            np.interp(where, self.log_snr, self.sigma),
        )

    def information(self, snr: Float[np.ndarray, " source"]) -> float:
        """Inverse variance that the sources give together, mas⁻²."""
        slope, sigma = self.at(snr)
        return float(((slope / sigma) ** 2).sum())

    def with_offset(self, offset: Float[np.ndarray, " 2"]) -> "Trust":
        """The same, with an offset known from elsewhere."""
        return replace(self, offset=offset)


def learn_trust(
    moves: Moves, truth: Float[np.ndarray, "source 2"], slope: float | None = None
) -> Trust:
    """What answers are worth, from some whose truth is known (mas).

    slope: given when the answers are known not to be shrunken. The answers must be of sources
    that the method was not fitted on.
    """
    offset = np.median(moves.moved - (slope or _slope(truth, moves.moved)) * truth, axis=0)
    residual = moves.moved - offset
    bins = max(1, min(MOST_BINS, len(truth) // A_BIN))
    order = np.array_split(np.argsort(moves.snr, kind="stable"), bins)
    spread = float(np.sqrt(np.mean(truth**2))) or 1.0
    slopes, sigmas = [], []
    for members in order:
        true, answer = truth[members], residual[members]
        own = _slope(true, answer) if slope is None else slope
        slopes.append(own)
        sigmas.append(max(scatter((answer - own * true).ravel()), FLOOR * spread))
    return Trust(
        log_snr=np.array([np.log(np.median(moves.snr[members])) for members in order]),
        slope=np.array(slopes),
        sigma=np.array(sigmas),
        offset=offset,
    )


def learn_stretch(found: Motion, truth: Motion) -> Float[np.ndarray, "2 2"]:
    """What a readout makes of shifts as a whole: a linear map, from patches that it was not fitted
    on. Where they don't tell the map well, none."""
    if len(truth.turn) < FEWEST_PATCHES:
        return np.eye(2)
    map_, *_ = np.linalg.lstsq(truth.shift, found.shift, rcond=None)
    stretch = np.linalg.svd(map_, compute_uv=False)
    trusted = stretch.min() >= 1 / MOST_GAIN and stretch.max() <= MOST_GAIN
    return map_ if trusted else np.eye(2)


def unstretched(found: Motion, stretch: Float[np.ndarray, "2 2"]) -> Motion:
    """Motions less what `learn_stretch` found."""
    gain = float(np.sqrt(abs(np.linalg.det(stretch))))
    return Motion(found.shift @ np.linalg.inv(stretch), found.turn / gain)


def mean_motion(motions: Sequence[Motion]) -> Motion:
    """The mean of what several readouts found."""
    return Motion(
        np.mean([motion.shift for motion in motions], axis=0),
        np.mean([motion.turn for motion in motions], axis=0),
    )


def _slope(truth: Float[np.ndarray, "source 2"], answer: Float[np.ndarray, "source 2"]) -> float:
    """Of answers on truth; 0 where it is not above what chance could give."""
    truth, answer = ((values - values.mean(axis=0)).ravel() for values in (truth, answer))
    power = max(float(truth @ truth), FLOOR)
    slope = float(truth @ answer) / power
    chance = float(np.std(answer - slope * truth)) / np.sqrt(power)
    return slope if slope > SIGNIFICANT * chance else 0.0


def solve(moves: Moves, trust: Trust, count: int, prior: Motion) -> Motion:
    """Shift and turn of each of `count` patches: the most probable, given what is usual.

    prior: motions of training sky; with nothing to go by, the answer is none. Sources that
    disagree with their patch by more than 2 σ count less.
    """
    usual = np.array([*np.mean(prior.shift**2, axis=0), np.mean(prior.turn**2)])
    usual = 1 / np.maximum(usual, FLOOR)
    slope, sigma = trust.at(moves.snr)
    answers = np.zeros((count, 3))
    for patch in np.unique(moves.patch):
        own = moves.patch == patch
        answers[patch] = _solve_one(
            moves.place[own], moves.moved[own] - trust.offset, slope[own], sigma[own], usual
        )
    return Motion(answers[:, :2], answers[:, 2])


def _solve_one(
    place: Float[np.ndarray, "source 2"],
    moved: Float[np.ndarray, "source 2"],
    slope: Float[np.ndarray, " source"],
    sigma: Float[np.ndarray, " source"],
    usual: Float[np.ndarray, " 3"],
) -> Float[np.ndarray, " 3"]:
    """Iteratively reweighted least squares for shift and turn of one patch."""
    design = np.zeros((len(place), 2, 3))
    design[:, 0, 0] = design[:, 1, 1] = 1
    design[:, 0, 2], design[:, 1, 2] = -place[:, 1], place[:, 0]
    design *= (slope / sigma)[:, None, None]
    measured = moved / sigma[:, None]
    weight, answer = np.ones(len(place)), np.zeros(3)
    for _ in range(ITERATIONS):
        normal = np.einsum("s,sai,saj->ij", weight, design, design) + np.diag(usual)
        right = np.einsum("s,sai,sa->i", weight, design, measured)
        answer = np.linalg.solve(normal, right)
        distance = np.linalg.norm(measured - design @ answer, axis=1)
        weight = np.minimum(1, HUBER / np.maximum(distance, FLOOR))
    return answer
