"""Ranks of several models on each family of tasks, with ties where the scores do not tell two models apart, and their average.

Triantafillou et al., "Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples", ICLR 2020, compare models by their
average rank over data sets. The rule is that of their leaderboard (github.com/google-research/meta-dataset, Leaderboard.ipynb): the best
model of a data set, and all models that a test at 95 % does not separate from the best one, share the average of their ranks. The rule is
then applied to the remaining models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from metarun.engine.averages import interval, mean

Separates = Callable[[int, int], bool]
"""Whether a test tells two models apart, by their positions."""


def ranks(scores: Sequence[float], separates: Separates, *, higher_is_better: bool) -> list[float]:
    """Return the rank of each model on one family; 1 is the best. A score that is not finite is the worst.

    separates: a test of two models, of which the first one has the better score.
    """
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(range(len(scores)), key=lambda place: sign * scores[place] if math.isfinite(scores[place]) else math.inf)
    found = [0.0] * len(scores)
    taken = 0
    while order:
        best = order[0]
        tied = [best, *(other for other in order[1:] if not separates(best, other))]
        for place in tied:
            found[place] = taken + (len(tied) + 1) / 2
        taken += len(tied)
        order = [place for place in order if place not in tied]
    return found


def average_ranks(by_family: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the average rank of each model over the families. by_family: family -> the rank of each model."""
    return [sum(each) / len(each) for each in zip(*by_family.values(), strict=True)]


def by_intervals(scores: Sequence[float], half_widths: Sequence[float]) -> Separates:
    """Return the test of Meta-Dataset for independent scores: a two-sided z-test of two means with 95 % intervals of these half widths.

    A half width that is not finite, as for a single episode, separates nothing.
    """

    def separates(one: int, other: int) -> bool:
        a, b = scores[one], scores[other]
        if not (math.isfinite(a) and math.isfinite(b)):
            return math.isfinite(a) != math.isfinite(b)
        return abs(a - b) > math.hypot(half_widths[one], half_widths[other])  # false for NaN

    return separates


def by_differences(scores: Sequence[Sequence[Sequence[float]]]) -> Separates:
    """Return the test of scores on the same episodes: the 95 % interval of the mean difference, by Student's t, excludes 0.

    scores: (models, runs, episodes). Run by run, models have the same seeds, and each episode counts with the mean of its differences over
    the runs. So the test is about these runs on new episodes. The episodes count that are finite for both.
    """

    def separates(one: int, other: int) -> bool:
        a, b = (torch.tensor(scores[place], dtype=torch.float64) for place in (one, other))
        finite = a.isfinite().all(dim=0) & b.isfinite().all(dim=0)
        differences = (a - b)[:, finite].mean(dim=0)
        return len(differences) > 1 and abs(mean(differences)) > interval(differences)

    return separates
