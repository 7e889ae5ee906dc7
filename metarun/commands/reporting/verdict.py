"""The verdict of a report, in words: which model is better, by how much, and what the numbers do not show.

The verdict reads plain records, so it knows no file. Chosen by validation: where every model has a validation score, the verdict names the
model that validation prefers and compares the others with it on the scored tasks. A choice by test scores would look better than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metarun.commands.reporting.numbers import NAMES, difference, higher_is_better, plain, with_half
from metarun.commands.reporting.page import code
from metarun.errors import counted

FEW = 100
"""A mean over fewer tasks gets a remark."""
PLURALS = {"task": "tasks", "trajectory": "trajectories"}
SAID = 5
"""Models that a sentence names."""


@dataclass(frozen=True)
class Standing:
    """A model, or several runs of it that differ in the seed alone.

    mean: None where it is not finite. half: of its 95 % interval, over tasks for one run and over runs for several; None without one.
    episodes: scored, 0 where the model has no score. seeds: number of runs. baseline, baseline_name: a score that needs no learning.
    validation: the score that `best.pt` was chosen by. unit: the word for an episode, "task" or "trajectory".
    """

    name: str
    metric: str
    mean: float | None
    half: float | None
    episodes: int
    split: str = "test"
    seeds: int = 1
    median: float | None = None
    baseline: float | None = None
    baseline_name: str = ""
    diverged: int = 0
    not_finite: int = 0
    validation: float | None = None
    validation_metric: str = ""
    validation_higher: bool = True
    covers_new: bool = True
    population: str = ""
    unit: str = "task"
    conditions: str = ""


@dataclass(frozen=True)
class Gap:
    """The paired difference first - second on tasks that both have scored. half: of its 95 % interval, None without one.

    seeds: number of pairs of runs; with several, `half` is over tasks and `seeds_half` over seeds. lost: tasks that are not finite
    for one of both, which the mean leaves out.
    """

    first: str
    second: str
    mean: float | None
    half: float | None
    episodes: int
    seeds: int = 1
    seeds_half: float | None = None
    lost: int = 0


def verdict(standings: Sequence[Standing], gaps: Sequence[Gap]) -> list[str]:
    """Return sentences: the comparison first, then what limits it. gaps: of pairs of the standings, in any order and direction."""
    scored = [each for each in standings if each.episodes]
    if not scored:
        return _without_scores(standings)
    said = [_one(scored[0])] if len(scored) == 1 else _several(scored, gaps)
    return [*_conditions(scored), *said, *limits(scored), *_unscored(standings)]


def leader_of(standings: Sequence[Standing]) -> tuple[Standing, bool]:
    """Return the model that the verdict compares the others with, and whether validation chose it."""
    validated = all(each.validation is not None for each in standings)
    if validated and len({(each.validation_metric, each.validation_higher) for each in standings}) == 1:
        choose = max if standings[0].validation_higher else min
        return choose(standings, key=lambda each: each.validation or 0.0), True
    return ranked(standings)[0], False


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Return the models from the best mean to the worst; a mean that is not finite is the worst."""
    sign = -1.0 if higher_is_better(standings[0].metric) else 1.0
    return sorted(standings, key=lambda each: (each.mean is None, sign * (each.mean or 0.0)))


def _one(one: Standing) -> str:
    return f"{code(one.name)} has {_score(one)}.{_beside_baseline(one)}"


def _score(one: Standing) -> str:
    """Return the score with its article and the tasks, such as "an accuracy of 95.4 % ± 0.9 on 600 test tasks"."""
    name = NAMES.get(one.metric, one.metric)
    article = "an" if name[0] in "aeiou" else "a"
    over = f", the mean of {one.seeds} seeds" if one.seeds > 1 else ""
    if one.mean is None:
        return f"no finite {name}: {one.not_finite} of {one.episodes} {one.split} {PLURALS[one.unit]} are not finite"
    return f"{article} {name} of {with_half(one.mean, one.half, one.metric)} on {_tasks(one)}{over}"


def _tasks(one: Standing) -> str:
    return f"{one.episodes:,} {one.split} {one.unit if one.episodes == 1 else PLURALS[one.unit]}"


def _beside_baseline(one: Standing) -> str:
    """Return how the score stands to the score without learning."""
    if one.baseline is None or one.mean is None:
        return ""
    gain = (one.mean - one.baseline) * (1.0 if higher_is_better(one.metric) else -1.0)
    value = f"{plain(100 * one.baseline)} %" if one.metric == "accuracy" else plain(one.baseline)
    if gain <= (one.half or 0.0):
        return f" {one.baseline_name} has {value}, so the model has learned nothing that this score shows."
    return f" {one.baseline_name} has {value}."


def _several(scored: Sequence[Standing], gaps: Sequence[Gap]) -> list[str]:
    if len({each.metric for each in scored}) > 1:
        return ["The models have different metrics, so their scores cannot be compared."]
    leader, chosen = leader_of(scored)
    others = [each for each in ranked(scored) if each.name != leader.name]
    by_name = {each.name: gap for each in others if (gap := _gap(leader.name, each.name, gaps)) is not None}
    wins, ties, losses = (_of(kind, by_name, leader.metric) for kind in ("win", "tie", "loss"))
    said = []
    if wins:
        said.append(f"{code(leader.name)} beats {_listed(wins, leader.metric)} on {_same_tasks(wins, leader)}{_direction(leader.metric)}.")
    if ties:
        subject = "it" if wins else code(leader.name)
        said.append(f"The data do not separate {subject} from {_listed(ties, leader.metric, tied=True)} on {_same_tasks(ties, leader)}.")
    if losses:
        why = ", though validation preferred it" if chosen else ""
        said.append(f"{code(leader.name)} is behind {_listed(losses, leader.metric)} on {_same_tasks(losses, leader)}{why}.")
    how = "has the best validation score" if chosen else f"has the best {leader.split} score; a choice by this score is optimistic"
    own = f"{code(leader.name)} {how}. It has {_score(leader)}.{_beside_baseline(leader)}"
    unpaired = _unpaired([each for each in others if each.name not in by_name], leader)
    return [*said, own, *unpaired]


def _gap(leader: str, other: str, gaps: Sequence[Gap]) -> Gap | None:
    """Return the difference leader - other."""
    for gap in gaps:
        if gap.mean is None:
            continue
        if (gap.first, gap.second) == (leader, other):
            return gap
        if (gap.first, gap.second) == (other, leader):
            return Gap(leader, other, -gap.mean, gap.half, gap.episodes, gap.seeds, gap.seeds_half, gap.lost)
    return None


def widest(gap: Gap) -> float | None:
    """Return half the wider interval of a difference: over tasks, or over seeds."""
    halves = [half for half in (gap.half, gap.seeds_half) if half is not None]
    return max(halves) if halves else None


def outcome(gap: Gap, metric: str) -> str:
    """Return "win", "loss" or "tie" for `first`: a tie where the wider interval holds 0, and where there is no interval."""
    half, gain = widest(gap), (gap.mean or 0.0) * (1.0 if higher_is_better(metric) else -1.0)
    if half is None or abs(gain) <= half:
        return "tie"
    return "win" if gain > 0 else "loss"


def _of(kind: str, gaps: dict[str, Gap], metric: str) -> list[Gap]:
    return [gap for gap in gaps.values() if outcome(gap, metric) == kind]


def _listed(gaps: Sequence[Gap], metric: str, tied: bool = False) -> str:
    """Return the other models with their differences, and how many more there are."""
    told = []
    for gap in gaps[:SAID]:
        size = difference(gap.mean or 0.0, widest(gap), metric)
        told.append(f"{code(gap.second)} ({'a difference of ' if tied else ''}{size})" if tied else f"{code(gap.second)} by {size}")
    if len(gaps) > SAID:
        told.append(f"{len(gaps) - SAID} more")
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"


def _same_tasks(gaps: Sequence[Gap], one: Standing) -> str:
    counts, seeds = sorted({gap.episodes for gap in gaps}), max(gap.seeds for gap in gaps)
    number = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    word = one.unit if counts == [1] else PLURALS[one.unit]
    return f"the same {number} {one.split} {word}" + (f" over {seeds} seeds" if seeds > 1 else "")


def _direction(metric: str) -> str:
    return "" if higher_is_better(metric) else f" ({NAMES.get(metric, metric)}: lower is better)"


def _unpaired(others: Sequence[Standing], leader: Standing) -> list[str]:
    """Return the scores of the models that have no paired difference to the first one."""
    if not others:
        return []
    told = [f"{code(each.name)} {with_half(each.mean, each.half, each.metric)}" for each in others[:SAID]]
    more = f" and {len(others) - SAID} more" if len(others) > SAID else ""
    why = f"There is no paired difference to {code(leader.name)}, since the scores by episode are missing or of other tasks"
    if leader.mean is None or all(each.mean is None for each in others):
        why = f"A mean that is not finite has no difference to {code(leader.name)}"
    return [f"The others: {', '.join(told)}{more}. {why}."]


def _conditions(scored: Sequence[Standing]) -> list[str]:
    """Return a remark where the scores are of different tasks."""
    if len({(each.conditions, each.split) for each in scored}) == 1:
        return []
    return ["The models were scored under different conditions, so their scores do not compare: see the table of scores."]


def limits(scored: Sequence[Standing]) -> list[str]:
    """Return the sentences about what the scores do not show."""
    said = []
    for one in scored:
        if one.diverged or one.not_finite:
            many = f"{max(one.diverged, one.not_finite)} of {counted(one.episodes * one.seeds, 'task')} of {code(one.name)}"
            median = (
                "" if one.median is None or one.metric == "accuracy" else f" Read its median, {with_half(one.median, None, one.metric)}."
            )
            said.append(f"{many} diverged.{median}")
    fewest = min(each.episodes for each in scored)
    if fewest == 1:
        said.append("One task has no interval. Score more tasks with `episodes=600`.")
    elif fewest < FEW and scored[0].unit == "task":
        said.append(f"{fewest} tasks are few: the intervals are wide. Score more tasks with `episodes=600`.")
    if any(not each.covers_new for each in scored):
        what = next(each.population for each in scored if not each.covers_new)
        said.append(f"Every task has the same {what}, so no interval covers new ones.")
    if all(each.seeds == 1 for each in scored):
        who = "Each model" if len(scored) > 1 else "The model"
        said.append(f"{who} was trained once: the intervals are over tasks and do not cover another training seed.")
    return said


def _unscored(standings: Sequence[Standing]) -> list[str]:
    without = [each for each in standings if not each.episodes]
    if not without:
        return []
    names = ", ".join(code(each.name) for each in without[:SAID])
    return [f"No score: {names}{' and more' if len(without) > SAID else ''}."]


def _without_scores(standings: Sequence[Standing]) -> list[str]:
    """Return what the validations say where no model has been scored."""
    validated = [each for each in standings if each.validation is not None]
    if not validated:
        return ["No run has a score yet."]
    if len({(each.validation_metric, each.validation_higher) for each in validated}) > 1:
        return ["No run has been tested, and the validation scores are of different kinds."]
    best, _ = leader_of(validated)
    value = with_half(best.validation, None, "accuracy" if best.validation_metric.endswith("accuracy") else best.validation_metric)
    word = f"{best.validation_metric} of {value}"
    return [f"No run has been tested. {code(best.name)} has the best validation score, {word}."]
