"""Differences of scores on the same episodes, with their intervals over episodes and over seeds, and means over seeds.

A hard episode is hard for both models, so the paired difference can show which model is better even if the two intervals overlap. The
interval is a 95 % interval by Student's t. An episode that is not finite for one model counts as worse for that model; the mean difference
is over the episodes that are finite for both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from metarun.commands.comparing.runs import HIGHER_IS_BETTER
from metarun.engine import averages, ranks
from metarun.errors import UserError

ByEpisode = Mapping[int, float]
"""Number of the episode -> score."""


class Interval(NamedTuple):
    """A mean with half the width of its 95 % interval; the width is None for a single value, and infinite where a value is not finite."""

    mean: float
    ci95: float | None


class OverSeeds(NamedTuple):
    """The scores of the runs of one setting: mean and interval over the runs, standard deviation, interquartile mean, the scores."""

    mean: float
    ci95: float | None
    std: float | None
    iqm: float
    values: tuple[float, ...]


class Paired(NamedTuple):
    """The differences of a setting to another one, episode by episode: score minus the other score.

    over_episodes: holds for these runs on new episodes; with several seeds, an episode counts with the mean of its differences over them.
    over_seeds: holds for new runs on these episodes; None for one seed. by_seed: the mean difference of each seed.
    wins: share of the pairs in which the setting is better; ties count half. episodes: how many; not_finite: how many have no difference.
    """

    over_episodes: Interval
    over_seeds: Interval | None
    by_seed: tuple[float, ...]
    wins: float
    episodes: int
    not_finite: int

    @property
    def separates(self) -> bool:
        """Whether the interval over episodes excludes 0."""
        width = self.over_episodes.ci95
        return width is not None and abs(self.over_episodes.mean) > width


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of the values with its interval."""
    width = averages.interval(torch.tensor(values, dtype=torch.float64))
    return Interval(statistics.fmean(values), None if math.isnan(width) else width)


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Return the figures over the runs of one setting."""
    std = averages.std(torch.tensor(values, dtype=torch.float64))
    return OverSeeds(*interval(values), None if math.isnan(std) else std, averages.interquartile_mean(values), tuple(values))


def paired(new: Sequence[ByEpisode], base: Sequence[ByEpisode], metric: str) -> Paired:
    """Return the differences of the runs `new` to the runs `base`, run by run: both list the same seeds in the same order.

    Raises UserError where the numbers of runs or the episodes differ, and where fewer than two episodes are finite in both.
    """
    if len(new) != len(base):
        raise UserError(f"the differences are seed by seed, and one setting has {len(new)} runs and the other one {len(base)}.")
    for one, other in zip(new, base, strict=True):
        if one.keys() != other.keys():
            raise UserError(f"the differences are episode by episode, and one evaluation has {len(one)} and the other one {len(other)}.")
    runs = list(zip(new, base, strict=True))
    pairs = [(one[episode], other[episode]) for one, other in runs for episode in other]
    by_episode = [[one[episode] - other[episode] for one, other in runs] for episode in base[0]]
    finite = [differences for differences in by_episode if all(map(math.isfinite, differences))]
    if len(finite) < 2:
        raise UserError("there are fewer than two episodes with finite scores in both.")
    by_seed = tuple(statistics.fmean(differences) for differences in zip(*finite, strict=True))
    return Paired(
        over_episodes=interval([statistics.fmean(differences) for differences in finite]),
        over_seeds=interval(by_seed) if len(runs) > 1 else None,
        by_seed=by_seed,
        wins=sum(better(metric, one, other) for one, other in pairs) / len(pairs),
        episodes=len(by_episode),
        not_finite=len(by_episode) - len(finite),
    )


def better(metric: str, new: float, base: float) -> float:
    """Return 1 where the new score is better, 0.5 for a tie and 0 where it is worse; a score that is not finite is the worst."""
    sign = 1.0 if HIGHER_IS_BETTER.get(metric, False) else -1.0
    one, other = (sign * score if math.isfinite(score) else -math.inf for score in (new, base))
    return 1.0 if one > other else 0.5 if one == other else 0.0


def family_ranks(scores: Mapping[str, Sequence[Sequence[Sequence[float]]]], metric: str) -> dict[str, list[float]]:
    """Return family -> the rank of each setting, by the paired test where the settings have equally many runs, else by their intervals.

    scores: family -> (settings, runs, episodes).
    """
    return {name: _ranks(each, metric) for name, each in scores.items()}


def _ranks(scores: Sequence[Sequence[Sequence[float]]], metric: str) -> list[float]:
    found = [family_interval(runs) for runs in scores]
    means, widths = [each.mean for each in found], [math.nan if each.ci95 is None else each.ci95 for each in found]
    alike = len({len(runs) for runs in scores}) == 1
    test = ranks.by_differences(scores) if alike else ranks.by_intervals(means, widths)
    return ranks.ranks(means, test, higher_is_better=HIGHER_IS_BETTER.get(metric, False))


def family_interval(runs: Sequence[Sequence[float]]) -> Interval:
    """Return the mean over runs and episodes; the interval is over the episodes of a single run, and over the means of several runs."""
    values = runs[0] if len(runs) == 1 else [statistics.fmean(run) for run in runs]
    return Interval(statistics.fmean(score for run in runs for score in run), interval(values).ci95)


def average_ranks(by_family: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the average rank of each setting over the families."""
    return ranks.average_ranks(by_family)
