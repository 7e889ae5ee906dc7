"""The scored settings of a comparison: their scores over runs and episodes, and the setting that the others are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metarun.commands.comparing.differences import OverSeeds, Paired, interval, over_seeds, paired
from metarun.commands.comparing.evaluations import Evaluation, Scores, read_scores
from metarun.commands.comparing.naming import names, settings
from metarun.commands.comparing.reading import mapping, number
from metarun.commands.comparing.runs import HIGHER_IS_BETTER, Run
from metarun.commands.comparing.scoring import Scored, keys_of_episodes
from metarun.errors import UserError
from metarun.files.paths import expanded


class Sample(NamedTuple):
    """The score of one run. scores: by episode; None where the evaluation has not written them. report: the figures of this run."""

    seed: int | None
    name: str
    mean: float | None
    ci95: float | None
    scores: Scores | None
    report: Mapping[str, Any]


class Setting(NamedTuple):
    """A row: the runs of one setting that were scored on the same episodes. over: the score over seeds; None for a single run."""

    name: str
    runs: tuple[Run, ...]
    evaluations: tuple[Evaluation, ...]
    samples: tuple[Sample, ...]
    over: OverSeeds | None

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.evaluations[0].metric

    @property
    def mean(self) -> float | None:
        """The score; None where it is not finite."""
        return self.samples[0].mean if self.over is None else number(self.over.mean)

    @property
    def ci95(self) -> float | None:
        """Half the interval of the score: over the episodes of a single run, else over the seeds."""
        return self.samples[0].ci95 if self.over is None else self.over.ci95

    @property
    def validation(self) -> float | None:
        """The mean validation score; None where a run has none."""
        scores = [run.validation.value for run in self.runs if run.validation is not None]
        return statistics.fmean(scores) if scores and len(scores) == len(self.runs) else None


def settings_of_scores(scored: Sequence[Scored]) -> list[Setting]:
    """Return the settings of the runs that have an evaluation. The best score comes first; scores that are not finite come last."""
    pairs = [(each.run, each.evaluation) for each in scored if each.evaluation is not None]
    runs = [run for run, _ in pairs]
    own = names(runs)
    found = [_setting(each.name, [pairs[place] for place in each.places], [own[place] for place in each.places]) for each in settings(runs)]
    sign = -1.0 if found and HIGHER_IS_BETTER.get(found[0].metric, False) else 1.0
    return sorted(found, key=lambda each: (each.mean is None, sign * (each.mean or 0.0)))


def _setting(name: str, pairs: Sequence[tuple[Run, Evaluation]], own: Sequence[str]) -> Setting:
    samples = tuple(sample for (run, evaluation), word in zip(pairs, own, strict=True) for sample in samples_of(run, evaluation, word))
    means = [float("inf") if sample.mean is None else sample.mean for sample in samples]
    over = over_seeds(means) if len(samples) > 1 else None
    return Setting(name, tuple(run for run, _ in pairs), tuple(evaluation for _, evaluation in pairs), samples, over)


def samples_of(run: Run, evaluation: Evaluation, name: str) -> list[Sample]:
    """Return the score of an evaluation. With `ensemble=false`, return a score for each of its runs, each from its own file."""
    each = [mapping(inside) for inside in evaluation.report.get("runs") or ()]
    if not each:
        scores = evaluation.scores()
        ci95 = evaluation.ci95
        if ci95 is None and scores is not None:  # a file of scores has no report
            ci95 = interval(list(scores.by_episode.values())).ci95
        return [Sample(run.seed, name, evaluation.mean, ci95, scores, evaluation.report)]
    files = [evaluation.folder / f"episodes_{place}.csv" for place in range(1, len(each) + 1)]
    found = [read_scores(file) if file.is_file() else None for file in files]
    seeds = [inside.get("seed") for inside in each]
    return [
        Sample(seed, f"{name} seed={seed}", number(inside.get("mean")), number(inside.get("ci95")), scores, inside)
        for inside, seed, scores in zip(each, seeds, found, strict=True)
    ]


class Base(NamedTuple):
    """The setting that the others are compared with, and why: "validation", "test" or "typed"."""

    setting: Setting
    chosen_by: str


def base_of(found: Sequence[Setting], typed: str | None = None) -> Base | None:
    """Return the setting that the user typed, or else the best setting by validation, or else by score.

    Validation scores say which is the best only where they are of the same validation tasks.
    typed: a name in the table, or the path of a run. Return None if no setting has this name.
    """
    if typed is not None:
        named = [each for each in found if _is_called(each, typed)]
        return Base(named[0], "typed") if named else None
    runs = [run for each in found for run in each.runs if run.validation is not None]
    kinds = {(run.validation.metric, run.validation.statistic) for run in runs if run.validation is not None}
    tasks = {tuple(sorted(keys_of_episodes(run.config, "val").items())) for run in runs}
    scores = [each.validation for each in found]
    if len(kinds) == len(tasks) == 1 and None not in scores:
        higher = HIGHER_IS_BETTER.get(next(iter(kinds))[0], False)
        return Base((max if higher else min)(found, key=lambda each: each.validation or 0.0), "validation")
    return Base(found[0], "test")


def _is_called(setting: Setting, typed: str) -> bool:
    """Return whether the user means a setting: by its name, by that of one of its runs, or by the path of one of its runs."""
    names = (setting.name, *(sample.name for sample in setting.samples))
    return typed in names or any(is_at(run, typed) for run in setting.runs)


def is_at(run: Run, path: str) -> bool:
    """Return whether a path names a run: its folder, or a file in it such as checkpoints/best.pt."""
    typed = expanded(path).resolve()
    return run.folder.resolve() in (typed, *typed.parents[:2])


class Difference(NamedTuple):
    """The paired differences of a setting to the base, or the reason why there are none."""

    found: Paired | None
    reason: str | None = None


def difference(setting: Setting, base: Setting) -> Difference:
    """Return the paired differences over the seeds that both settings have. A single run is paired with every seed of the other setting."""
    mine, theirs = list(setting.samples), list(base.samples)
    if len(mine) > 1 and len(theirs) > 1:
        shared = [sample.seed for sample in mine if sample.seed in {other.seed for other in theirs}]
        if not shared:
            return Difference(None, f"'{setting.name}' and '{base.name}' have no seed in common.")
        mine, theirs = ([next(each for each in side if each.seed == seed) for seed in shared] for side in (mine, theirs))
    count = max(len(mine), len(theirs))
    pair = [each * count if len(each) == 1 else each for each in (mine, theirs)]
    scores = [[sample.scores.by_episode for sample in side if sample.scores is not None] for side in pair]
    if any(len(side) < count for side in scores):
        return Difference(None, f"'{setting.name}' or '{base.name}' has no scores by episode (episodes.csv).")
    try:
        return Difference(paired(scores[0], scores[1], setting.metric))
    except UserError as error:
        return Difference(None, f"'{setting.name}' and '{base.name}': {error}")
