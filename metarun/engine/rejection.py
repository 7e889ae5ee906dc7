"""Rejection of queries that belong to no support class: a score of the outputs, and a threshold that is set on validation classes.

A query is rejected where its score lies below the threshold. Three scores of the logits z (N,) of a query; each is higher for a known
class:

    probability  max_n softmax(z)_n   (Hendrycks and Gimpel 2017, https://arxiv.org/abs/1610.02136)
    logit        max_n z_n, with prototypes minus the distance to the nearest one   (Vaze et al. 2022, https://arxiv.org/abs/2110.06207)
    energy       log Σ_n exp z_n   (Liu et al. 2020, https://arxiv.org/abs/2010.03759)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarun.engine.averages import interval

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": lambda logits: logits.softmax(dim=-1).amax(dim=-1),
    "logit": lambda logits: logits.amax(dim=-1),
    "energy": lambda logits: logits.logsumexp(dim=-1),
}
"""Score -> function of logits (B, N) that returns (B,)."""


@dataclass(frozen=True)
class Calibration:
    """The scores of validation queries, in E episodes of one size.

    true: score -> (E, Q), of queries whose class is in the support set. foreign: score -> (E, Q'), of queries of other classes.
    ways, shots: of the support sets; shots is the mean number of examples per class where it varies. classes: the number of validation
    classes that the episodes are drawn from.
    """

    true: Mapping[str, Tensor]
    foreign: Mapping[str, Tensor]
    ways: int
    shots: float
    classes: int


class Rate(NamedTuple):
    """A share of queries in [0, 1]: the mean over episodes, with half its 95 % interval over episodes (inf for a single one)."""

    mean: float
    ci95: float


class Rejection(NamedTuple):
    """A threshold and its shares of rejected queries, measured on validation episodes that did not choose the score or the threshold.

    score: the name of the score. separation: score -> the probability that a true query scores higher than a foreign one.
    true, foreign: the shares of true and of foreign queries that the threshold rejects. episodes: the number of episodes measured.
    """

    score: str
    threshold: float
    separation: dict[str, float]
    true: Rate
    foreign: Rate
    episodes: int

    def rejects(self, logits: Tensor) -> Tensor:
        """Return which of the queries with these logits (B, N) are rejected, (B,) bool."""
        return scores_of(logits)[self.score] < self.threshold


def scores_of(logits: Tensor) -> dict[str, Tensor]:
    """Return the scores (B,) of logits (B, N) in double precision, by name; -inf where a logit is NaN or +inf."""
    logits = logits.double()
    sound = ~(logits.isnan() | (logits == math.inf)).any(dim=-1)
    return {name: torch.where(sound, score(logits), -math.inf) for name, score in SCORES.items()}


def separation(true: Tensor, foreign: Tensor) -> float:
    """Return the probability that a true query (M,) scores higher than a foreign one (M',); equal scores count half.

    This is the area under the ROC curve, by the ranks of Mann and Whitney.
    """
    ordered = foreign.sort().values
    below, upto = torch.searchsorted(ordered, true), torch.searchsorted(ordered, true, right=True)
    return float((below + upto).double().mean() / (2 * len(foreign)))


def threshold_at(true: Tensor, rate: float) -> float:
    """Return the highest threshold below which at most `rate` of these scores (M,) lie; 0 <= rate < 1."""
    return float(true.sort().values[math.floor(rate * len(true) + 1e-9)])


def choose(calibration: Calibration, rate: float) -> Rejection:
    """Choose the score that separates best, and the threshold that rejects `rate` of the true queries; measure both on other episodes.

    The even episodes choose, and the odd ones measure.
    """
    chooses = {name: (calibration.true[name][::2].flatten(), calibration.foreign[name][::2].flatten()) for name in SCORES}
    separations = {name: separation(*pair) for name, pair in chooses.items()}
    best = max(SCORES, key=lambda name: separations[name])  # the first of equal ones
    threshold = threshold_at(chooses[best][0], rate)
    true, foreign = ((scores[best][1::2] < threshold).double().mean(dim=1) for scores in (calibration.true, calibration.foreign))
    return Rejection(best, threshold, separations, _rate(true), _rate(foreign), len(true))


def _rate(shares: Tensor) -> Rate:
    count = len(shares)
    return Rate(float(shares.mean()), interval(shares) if count > 1 else math.inf)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, `right` of `count` independent trials (Wilson 1927); (0, 1) without a trial."""
    if count == 0:
        return 0.0, 1.0
    z, share = 1.959964, right / count
    middle, half = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / (1 + z * z / count)), min(1.0, (middle + half) / (1 + z * z / count))
