"""Scores of several runs on the same episodes: the stored evaluation of each run, or a new one where none has these settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.comparing.evaluations import EPISODES, Evaluation, changing, read_evaluation, settings, typed_words
from metarun.commands.comparing.reading import leaves, look_up, mapping, number, sources_of, text_of, with_shared
from metarun.commands.comparing.runs import Run
from metarun.errors import UserError
from metarun.files.paths import names_path
from metarun.files.run_folder import CHECKPOINTS

Evaluate = Callable[[Run, Sequence[str]], Path]
"""Evaluates a run with these overrides of `metarun eval`, and returns the folder of the evaluation; UserError where that is impossible."""
USUAL_EPISODES, USUAL_SEED, BEST = 600, 0, "best.pt"
"""What `metarun eval` takes where the user says nothing."""
_TRAINING = ("augment", "data", "download", "left_out", "seed", "weights")
"""Keys of a task that change no validation or test episode, beside those that begin with `train_`."""
_INPUTS = ("categorical", "features", "item_bias", "item_ids", "several", "separator")
"""Keys of ratings and of a table that change the inputs of the examples, and not which examples an episode has."""
_COLUMNS = ("decimal", "delimiter", "item", "rating", "target", "task_column", "user")
"""Keys of ratings and of a table that say where a file has users, items and targets. The baseline says whether the targets differ."""


class Scored(NamedTuple):
    """A run with its evaluation, or with the reason why it has none."""

    run: Run
    evaluation: Evaluation | None
    reason: str | None = None


def scored(runs: Sequence[Run], split: str, overrides: Sequence[str] = (), evaluate: Evaluate | None = None) -> list[Scored]:
    """Return each run with its evaluation on the episodes of a split.

    overrides: of `metarun eval`, such as ["episodes=1000", "task.shots=5"]. evaluate: makes the evaluations that no run has stored; None to
    read only. A stored evaluation counts where it has these settings, and where it scored the run's present best checkpoint.
    """
    return [_scored(run, split, overrides, evaluate) for run in runs]


def _scored(run: Run, split: str, overrides: Sequence[str], evaluate: Evaluate | None) -> Scored:
    wanted = wanted_settings(run, split, typed_words(list(overrides)))
    stored = [each for each in run.evaluations(split) if _fits(each, run, wanted)]
    whole = [each for each in stored if (each.folder / EPISODES).is_file()]
    if whole or (stored and (evaluate is None or run.evaluation is not None)):
        return Scored(run, (whole or stored)[-1])
    if run.evaluation is not None:
        return Scored(run, None, f"this evaluation is of other episodes: {told(run.evaluation.settings)}")
    if not any((run.folder / CHECKPOINTS).glob("*.pt")):
        return Scored(run, None, run.error or "it has no checkpoint")
    if evaluate is None:
        return Scored(run, None, f"it has no evaluation with {told(wanted)}")
    try:
        return Scored(run, read_evaluation(evaluate(run, [f"split={split}", *overrides])))
    except UserError as error:
        return Scored(run, stored[-1] if stored else None, str(error))


def wanted_settings(run: Run, split: str, typed: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that an evaluation of a run has with these typed overrides."""
    trajectories = None if "task" in typed else look_up(run.config, "task.trajectories")
    usual = {"episodes": USUAL_EPISODES if trajectories is None else trajectories, "seed": USUAL_SEED}
    return settings(typed, {"split": split, **{key: typed.get(key, value) for key, value in usual.items()}})


def _fits(evaluation: Evaluation, run: Run, wanted: Mapping[str, str]) -> bool:
    asked, needed = (changing(each, run.config) for each in (evaluation.settings, wanted))
    if run.evaluation is not None:  # a row of its own: what the user typed must agree, and the rest is as it is
        return all(evaluation.settings.get(key) == text for key, text in needed.items() if key != "episodes")
    current = is_current(evaluation, run) or "best" in needed
    return asked == needed and current and len(evaluation.checkpoints) == int(needed.get("best", "1"))


def is_current(evaluation: Evaluation, run: Run) -> bool:
    """Return whether an evaluation scored the run's present best checkpoint."""
    files, best = {Path(path).name for path in evaluation.checkpoints}, run.validation
    return best is None or (files == {BEST} and evaluation.report.get("step") == best.step)


def told(settings: Mapping[str, str]) -> str:
    """Return the settings in words, such as "split=test episodes=600 seed=0"."""
    return " ".join(f"{key}={text}" for key, text in settings.items())


def episodes_of(evaluation: Evaluation) -> tuple[Any, ...]:
    """Return what determines the episodes of an evaluation: two evaluations with equal values have scored the same episodes.

    The score of the mean predictor follows from the targets of the episodes alone, so it differs where two files have other targets.
    """
    report = evaluation.report
    first = next(map(mapping, report.get("runs") or ()), report)
    baseline = number(report.get("baseline", first.get("baseline")))
    told = "" if baseline is None else f"{baseline:.4g}"  # devices differ in the last digits
    kept = tuple(sorted(keys_of_episodes(evaluation.config, evaluation.split).items()))
    return (evaluation.metric, evaluation.split, text_of(report.get("seed")), text_of(report.get("episodes")), told, kept)


def keys_of_episodes(config: Mapping[str, Any], split: str) -> dict[str, str]:
    """Return dotted key -> value as one types it of the keys of the task that determine the episodes of a split."""
    task = with_shared(mapping(config.get("task")))
    found = {key: text_of(value) for key, value in leaves({"task": task}).items() if _changes_episodes(key, split)}
    families = sources_of(task)  # their order is that of the episodes
    return {"task.sources": text_of(families), **found} if families else found


def _changes_episodes(key: str, split: str) -> bool:
    """Return whether a key of a task changes the episodes of a split; the list of the classes of another split does not."""
    parts = key.split(".")
    of_other_split = bool({"train", "val", "test"} - {split} & set(parts)) and split not in parts
    training = any(part.startswith("train_") or part in _TRAINING for part in parts[1:])
    return not (of_other_split or training or names_path(key) or parts[-1] in (*_INPUTS, *_COLUMNS))
