"""From run folders to the entries of a report, and to the paired differences between their models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metarun.commands.comparing.differences import paired
from metarun.commands.comparing.evaluations import Evaluation
from metarun.commands.comparing.naming import config_differences, names, settings, value_of
from metarun.commands.comparing.reading import number
from metarun.commands.comparing.runs import Run
from metarun.commands.comparing.scoring import episodes_of, is_current
from metarun.commands.reporting.entries import Entry, groups_of
from metarun.commands.reporting.verdict import Gap, Standing
from metarun.errors import UserError

LONGEST = 48
"""Letters of a name that a reader takes in at a glance."""


def entries_of(runs: Sequence[Run], evaluations: Sequence[Evaluation | None], titles: Sequence[str] = ()) -> list[Entry]:
    """Return an entry for each run with its evaluation. titles: the user's names for the runs; runs with one name
    are seeds of one model.
    """
    named, groups = names_of(runs, titles)
    keys = config_differences(runs)
    return [
        _entry(run, evaluation, named[place], groups[place], keys)
        for place, (run, evaluation) in enumerate(zip(runs, evaluations, strict=True))
    ]


def names_of(runs: Sequence[Run], titles: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Return the name of each run, and the name of its model. titles: as in `entries_of`."""
    named = _titled(runs, titles) if titles else _short(names(runs), runs)
    groups = list(titles or named)
    for setting in () if titles else settings(runs):
        name = setting.name if len(setting.name) <= LONGEST else _together([runs[place].folder.name for place in setting.places])
        for place in setting.places if len(setting.places) > 1 else ():
            groups[place] = name
    return named, groups


def _short(named: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Return the names, with the run's folder in the place of a name that is too long to read; its keys stand in the table of configs."""
    folders = [run.folder.name for run in runs]
    return [
        folder if len(name) > LONGEST and len(folder) < len(name) and folders.count(folder) == 1 else name
        for name, folder in zip(named, folders, strict=True)
    ]


def _together(folders: Sequence[str]) -> str:
    """Return a name for runs that differ in their seed: what their folders have in common, such as "maml-2s"."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*folders, strict=False))
    common = "".join(letters[0] for letters in alike).rstrip("-_=. ").removesuffix("seed").rstrip("-_=. ")
    return f"{common} ({len(folders)} seeds)" if common else f"{folders[0]} ({len(folders)} seeds)"


def _titled(runs: Sequence[Run], titles: Sequence[str]) -> list[str]:
    """Return the user's names. Runs with one name are seeds of one model, so each gets its seed too."""
    return [f"{title} seed={run.seed}" if list(titles).count(title) > 1 else title for title, run in zip(titles, runs, strict=True)]


def _entry(run: Run, evaluation: Evaluation | None, name: str, group: str, keys: Sequence[str]) -> Entry:
    by_episode = {} if evaluation is None else scores_of(evaluation)
    return Entry(
        name=name,
        group=group,
        seed=run.seed,
        folder=run.folder if run.evaluation is None else None,
        config=run.config,
        differing={key: value_of(run, key) for key in keys},
        typed=[f"{key}={value}" for key, value in run.overrides.items()] if run.evaluation is None else (),
        training=run.report or _so_far(run),
        history=run.metrics(),
        report={} if evaluation is None else evaluation.report,
        evaluation=None if evaluation is None else evaluation.folder,
        scores=[score if math.isfinite(score) else None for _, score in sorted(by_episode.items())],
        dealt=() if evaluation is None else episodes_of(evaluation),
        status=run.status,
        seconds=run.seconds,
    )


def _so_far(run: Run) -> dict[str, Any]:
    """Return what the log of a run without a report says about the training, with the keys of the report; {} before a validation."""
    score = run.validation
    if score is None:
        return {}
    name, _, rest = score.statistic.partition(" ")
    chosen = "mean negative log-likelihood" if name == "nll" else f"{name} {score.metric}"
    select = " ".join(filter(None, (chosen, "over the validation tasks", rest)))
    return {"metric": run.metric, "steps": run.steps, "select": select, "best": {"score": score.value, "step": score.step}}


def scores_of(evaluation: Evaluation) -> Mapping[int, float]:
    """Return the scores by episode; {} where there is no such file, or one of another form."""
    try:
        found = evaluation.scores()
    except UserError:
        return {}
    return {} if found is None else found.by_episode


def gaps_of(entries: Sequence[Entry], standings: Sequence[Standing], base: str) -> list[Gap]:
    """Return the paired differences of the other models to `base`, in the order of the standings."""
    groups = groups_of([entry for entry in entries if entry.scores])
    found = [_gap(standing.name, base, groups) for standing in standings if standing.name != base]
    return [gap for gap in found if gap is not None]


def _gap(name: str, base: str, groups: Mapping[str, Sequence[Entry]]) -> Gap | None:
    """Return the difference of one model to the base on the seeds that both have; None where it cannot be computed."""
    new, other = groups.get(name, []), groups.get(base, [])
    if not new or not other or new[0].dealt != other[0].dealt or len(new[0].scores) != len(other[0].scores):
        return None
    pairs = _matched(new, other)
    if not pairs:
        return None
    try:
        result = paired([_numbered(one) for one, _ in pairs], [_numbered(two) for _, two in pairs], new[0].metric)
    except UserError:
        return None
    seeds = result.over_seeds
    return Gap(
        first=name,
        second=base,
        mean=result.over_episodes.mean,
        half=number(result.over_episodes.ci95),
        episodes=result.episodes,
        seeds=len(pairs),
        seeds_half=None if seeds is None else number(seeds.ci95),
        lost=result.not_finite,
    )


def _matched(new: Sequence[Entry], other: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Return the pairs of one seed; a single run on each side is a pair whatever its seed."""
    if len(new) == len(other) == 1:
        return [(new[0], other[0])]
    by_seed = {entry.seed: entry for entry in other}
    return [(entry, by_seed[entry.seed]) for entry in new if entry.seed in by_seed]


def _numbered(entry: Entry) -> dict[int, float]:
    return {episode: math.inf if score is None else score for episode, score in enumerate(entry.scores)}


def stored_evaluations(runs: Sequence[Run], split: str) -> list[Evaluation | None]:
    """Return the stored evaluation of each run that the report shows; None for a run without one.

    Of several evaluations, the report takes one of the run's present best checkpoint, whose settings all runs have; then the one with the
    fewest settings that the user typed; then the one with the most episodes; then the newest.
    """
    found = [run.evaluations(split) if run.evaluation is None else [run.evaluation] for run in runs]
    common = set.intersection(*({_key(each) for each in of_run} for of_run in found)) if found else set()
    return [_best(run, of_run, common) for run, of_run in zip(runs, found, strict=True)]


def _best(run: Run, evaluations: Sequence[Evaluation], common: set[tuple[tuple[str, str], ...]]) -> Evaluation | None:
    if not evaluations:
        return None
    placed = [
        (is_current(each, run), _key(each) in common, -len(each.settings), number(each.report.get("episodes")) or 0.0, place)
        for place, each in enumerate(evaluations)
    ]
    return evaluations[max(placed)[-1]]


def _key(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(evaluation.settings.items()))
