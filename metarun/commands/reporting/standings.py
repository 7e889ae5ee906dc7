"""The standings of a report: the score of each model, over its seeds where it has several, in the order from the best to the worst."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from metarun.commands.comparing.differences import interval
from metarun.commands.comparing.reading import mapping, number
from metarun.commands.reporting.entries import Entry, groups_of
from metarun.commands.reporting.verdict import Standing, leader_of, ranked

CONDITIONS = ("task", "ways", "min_ways", "shots", "min_shots", "queries", "split", "seed", "episodes")
"""Entries of report.json under which scores compare only if they are equal."""


def standings_of(entries: Sequence[Entry]) -> list[Standing]:
    """Return one standing for each group, the model that the verdict names first in front, and the others from the best to the worst."""
    found = [_standing(group, each) for group, each in groups_of(entries).items()]
    scored = [each for each in found if each.episodes]
    if not scored or len({each.metric for each in scored}) > 1:
        return found
    leader, _ = leader_of(scored)
    return [leader, *(each for each in ranked(scored) if each is not leader), *(each for each in found if not each.episodes)]


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries in the order of their standings; those of a group by their seed."""
    groups = groups_of(entries)
    by_seed = {name: sorted(each, key=lambda entry: entry.seed if entry.seed is not None else 0) for name, each in groups.items()}
    return [entry for standing in standings_of(entries) for entry in by_seed[standing.name]]


def _standing(group: str, entries: Sequence[Entry]) -> Standing:
    scored = [entry for entry in entries if entry.scored]
    first = scored[0] if scored else entries[0]
    mean, half = over_seeds([entry.mean for entry in scored]) if len(scored) > 1 else (first.mean, first.half)
    population, report = mapping(first.report.get("population")), first.report
    baseline, baseline_name = baseline_of(report)
    validations = [value for entry in entries if (value := number(entry.best.get("score"))) is not None]
    select = str(first.training.get("select") or "")
    complete = len(validations) == len(entries)
    return Standing(
        name=group,
        metric=first.metric,
        mean=mean,
        half=half,
        episodes=int(number(report.get("episodes")) or 0),
        split=str(report.get("split") or "test"),
        seeds=max(1, len(scored)),
        median=number(report.get("median")) if len(scored) == 1 else None,
        baseline=baseline,
        baseline_name=baseline_name,
        diverged=_sum(scored, "diverged"),
        not_finite=_sum(scored, "not_finite"),
        validation=statistics.fmean(validations) if complete else None,
        validation_metric=select.replace(" over the validation tasks", "") or first.metric,
        validation_higher=first.metric == "accuracy" and "nll" not in select and "negative" not in select,
        covers_new=bool(population.get("covers_new", True)),
        population=f"{population.get('count')} {population.get('kind')}" if population else "",
        unit="trajectory" if report.get("stream") else "task",
        conditions=", ".join(f"{key} {report.get(key)}" for key in CONDITIONS),
    )


def _sum(entries: Sequence[Entry], key: str) -> int:
    return sum(int(number(entry.report.get(key)) or 0) for entry in entries)


def over_seeds(means: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return the mean of the runs' means and half its 95 % interval by Student's t; None where a mean is not finite."""
    finite = [mean for mean in means if mean is not None]
    if not finite or len(finite) < len(means):
        return None, None
    return interval(finite)


def baseline_of(report: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return the score that needs no learning, with its name: chance for a fixed number of ways, or the mean of the support targets."""
    if report.get("metric") != "accuracy":
        return number(report.get("baseline")), "Predicting the mean of the support targets"
    ways = number(report.get("ways"))
    if not ways or report.get("min_ways") is not None or report.get("stream"):
        return None, ""
    return 1.0 / ways, "Guessing"
