"""Runs as their folders have them: the config, the best validation, the status, the logged values and the stored evaluations."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.comparing.evaluations import REPORT, Evaluation, evaluations_below, read_evaluation, score_file, typed_words
from metarun.commands.comparing.reading import content_of, json_of, lines_of, mapping, number, text_of, yaml_of
from metarun.errors import UserError, printable
from metarun.files.lock import has_owner
from metarun.files.paths import expanded
from metarun.files.run_folder import CHECKPOINTS, CONFIG, FAILED, METRICS

HIGHER_IS_BETTER = {"accuracy": True, "mse": False}
"""The metrics of the objectives (`metarun.objectives`, which imports torch)."""
FINISHED, STOPPED, FAILED_RUN, RUNNING = "finished", "stopped", "failed", "running"
"""The states of a run. A stopped run can be resumed; a failed one is a job of a sweep that ended with an error."""
_DEPTH = 4
"""Folders below a given one in which runs are searched, such as outputs/multirun/<date>/<job>."""


class Score(NamedTuple):
    """The best validation of a run.

    metric: "accuracy", "mse" or "nll". value: the score that chose best.pt. ci95: half the width of its 95 % interval; None where the score
    is no mean after the last inner step. statistic: such as "mean" or "median after 1 inner step". step: the outer step.
    """

    metric: str
    value: float
    ci95: float | None
    statistic: str
    step: int

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger score is better."""
        return HIGHER_IS_BETTER.get(self.metric, False)


@dataclass(frozen=True)
class Run:
    """One run, or an evaluation whose run is not among the given folders.

    config: resolved; for a failed job that never began, with `${…}` as text. overrides: dotted key -> value of what the user typed, in
    order; {} where nothing says it. status: one of the states above. error: of a failed job. steps: outer steps done. seconds: of training.
    validation: None before the first validation with a finite score. report: of the training; {} before its end.
    evaluation: the evaluation that stands for the run; None for a run. beside: evaluations of the run in other folders.
    """

    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    overrides: Mapping[str, str] = field(default_factory=dict)
    status: str = FINISHED
    error: str | None = None
    steps: int = 0
    seconds: float | None = None
    validation: Score | None = None
    report: Mapping[str, Any] = field(repr=False, default_factory=dict)
    evaluation: Evaluation | None = None
    beside: tuple[Evaluation, ...] = field(repr=False, default=())

    def option(self, group: str) -> str | None:
        """Return the option of a group, such as "maml" of "algo"; None where the config has none."""
        option = mapping(self.config.get("options")).get(group)
        return option if isinstance(option, str) else None

    @property
    def algorithm(self) -> str:
        """The option of `algo`, such as "maml"; "?" where nothing says it."""
        return self.option("algo") or "?"

    @property
    def task(self) -> str:
        """The option of `task`, such as "glyphs"; "?" where nothing says it."""
        return self.option("task") or "?"

    @property
    def seed(self) -> int | None:
        """The seed of the training."""
        seed = self.config.get("seed")
        return seed if type(seed) is int else None

    @property
    def metric(self) -> str | None:
        """The metric of the task, such as "accuracy"; None where nothing says it yet."""
        if self.evaluation is not None:
            return self.evaluation.metric
        return metric_of(self.report, self.metrics())

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl: "step", the logged values, and "time" in seconds."""
        return [] if self.evaluation is not None else lines_of(self.folder / METRICS)

    def evaluations(self, split: str | None = None) -> list[Evaluation]:
        """Return the stored evaluations of this run, the oldest first; of one split, or of all."""
        found = [self.evaluation] if self.evaluation is not None else [*evaluations_below(self.folder), *self.beside]
        return [each for each in found if split in (None, each.split)]


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Return the runs at these paths, in their order.

    A path names a run folder, a file in it, a report.json, the folder of an evaluation, a CSV file of scores by episode, or a folder with
    runs below it, such as that of a sweep; the jobs of a sweep come in their order. A folder with evaluations and no run below it stands
    for the evaluations. An evaluation of one of the runs belongs to this run. Raises UserError for a path where there is nothing, or
    neither runs nor evaluations.
    """
    found: dict[Path, Run] = {}
    for path in (inside for given in paths for inside in _existing(given)):
        here = _at(path)
        if not here:
            raise UserError(f"'{path}' holds no run: a run has checkpoints/ or {METRICS} in its folder, and an evaluation has {REPORT}.")
        found |= {run.folder.resolve(): run for run in here if run.folder.resolve() not in found}
    return _joined(list(found.values()))


def _existing(given: str | Path) -> list[Path]:
    """Return the path, or the paths of a pattern that no shell has expanded."""
    path = expanded(given)
    with contextlib.suppress(OSError, ValueError):
        if path.exists():
            return [path]
        if matches := sorted(glob.glob(str(path))):
            return [Path(match) for match in matches]
    raise UserError(f"there is no file or folder '{given}'.")


def _at(path: Path) -> list[Run]:
    if path.is_file() and path.suffix == ".csv" and not (path.parent / REPORT).is_file():
        scores = score_file(path)
        return [Run(path, scores.config, evaluation=scores)]
    file = path.is_file()
    if file:
        path = path.parent
    if path.name == CHECKPOINTS:
        path = path.parent
    if (run := read_run(path)) is not None:
        return [run]
    if file:  # a file beside runs names none of them
        return []
    below = _joined(_below(path, _DEPTH))
    return [run for run in below if run.evaluation is None] or below


def _below(folder: Path, depth: int) -> list[Run]:
    try:
        inside = sorted((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=_numbered)
    except OSError:
        return []
    found: list[Run] = []
    for path in inside:
        if (run := read_run(path)) is not None:
            found.append(run)
        elif depth > 1:
            found += _below(path, depth - 1)
    return found


def _numbered(path: Path) -> list[tuple[int, str]]:
    """Return the key that sorts 2_a before 10_a."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)[:20] if part]


def read_run(folder: Path) -> Run | None:
    """Return the run, or the evaluation of a run, in a folder; None where the folder is neither."""
    report = json_of(folder / REPORT)
    if (evaluation := read_evaluation(folder)) is not None:
        return Run(folder, evaluation.config, typed_words(yaml_of(folder / ".hydra" / "overrides.yaml")), evaluation=evaluation)
    hydra = mapping(mapping(yaml_of(folder / ".hydra" / "hydra.yaml")).get("hydra")) if (folder / ".hydra").is_dir() else {}
    job = mapping(hydra.get("job"))
    began = (folder / METRICS).is_file() or any((folder / CHECKPOINTS).glob("*.pt"))
    error = _error(folder)
    of_metarun = job.get("name") == "metarun" and (job.get("config_name") == "train" or (job.get("config_name") == "eval" and error))
    if not began and not of_metarun:
        return None
    lines = lines_of(folder / METRICS)
    trained = report if "best" in report else {}
    config = _config(folder, began, hydra)
    return Run(
        folder=folder,
        config=config,
        overrides=typed_words(yaml_of(folder / ".hydra" / "overrides.yaml")),
        status=_status(folder, trained, lines, error),
        error=error,
        steps=max([line["step"] for line in lines], default=0),
        seconds=max([seconds for line in lines if (seconds := number(line.get("time"))) is not None], default=None),
        validation=_validation(config, trained, lines),
        report=trained,
    )


def _config(folder: Path, began: bool, hydra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config that a run has written; that of its checkpoint for a run of an earlier metarun; else that of Hydra."""
    if stored := json_of(folder / CONFIG):
        return stored
    if began:
        from metarun.records import checkpoint  # imported here: torch is slow to import, and later runs need no checkpoint for this

        for name in (checkpoint.LAST, checkpoint.BEST, checkpoint.PREVIOUS):
            with contextlib.suppress(UserError):
                return checkpoint.load(folder / CHECKPOINTS / name).config
    composed = mapping(yaml_of(folder / ".hydra" / "config.yaml"))
    choices = mapping(mapping(hydra.get("runtime")).get("choices"))
    return {**composed, "options": {group: option for group, option in choices.items() if "hydra" not in str(group).split("/")}}


def _status(folder: Path, report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], error: str | None) -> str:
    """Return the state. A finished run that goes on with more steps has a report of fewer steps than its last line."""
    if has_owner(folder):
        return RUNNING
    if report and max([line["step"] for line in lines], default=0) <= (number(report.get("steps")) or 0):
        return FINISHED
    return FAILED_RUN if error is not None else STOPPED


def _error(folder: Path) -> str | None:
    """Return the sentence with which a job of a sweep ended; None for another run. The sweep's folder has a line for each failed job."""
    failed = [mapping(_parsed(line)) for line in content_of(folder.parent / FAILED).splitlines()]
    sentences = [printable(" ".join(str(each.get("error")).split())) for each in failed if each.get("job") == folder.name]
    return sentences[-1] if sentences else None


def _parsed(line: bytes) -> Any:
    import json

    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def _validation(config: Mapping[str, Any], report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Score | None:
    """Return the best validation: of the report, or before the end of the run, of the log."""
    metric = metric_of(report, lines)
    statistic = statistic_of(config.get("select"), metric)
    name = "nll" if statistic == "nll" else metric
    best = mapping(report.get("best"))
    value, step = number(best.get("score")), best.get("step")
    if value is None or max([line["step"] for line in lines], default=0) > (number(report.get("steps")) or 0):
        sign = 1.0 if HIGHER_IS_BETTER.get(name or "", False) else -1.0
        scored = [(line["step"], score) for line in lines if (score := number(line.get("val/selected"))) is not None]
        step, value = max(scored, key=lambda each: sign * each[1], default=(None, None))  # of equal scores, the earlier one
    if name is None or value is None or type(step) is not int:
        return None
    widths = [number(line.get("val/ci95")) for line in lines if line["step"] == step and "val/ci95" in line]
    last = mapping(report.get("last"))
    ci95 = widths[-1] if widths else number(last.get("ci95")) if report.get("steps") == step else None
    return Score(name, value, ci95 if statistic == "mean" else None, statistic, step)


def metric_of(report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the metric of a run: of its report, or of the first validation in its log."""
    if isinstance(metric := report.get("metric"), str):
        return metric
    return next((metric for line in lines for metric in HIGHER_IS_BETTER if f"val/{metric}" in line), None)


def statistic_of(select: Any, metric: str | None) -> str:
    """Return in words the statistic that the key `select` names, as `metarun.engine.selection.Selection` reads it."""
    statistic, _, steps = ("" if select is None else text_of(select)).partition("@")
    name = statistic or ("mean" if metric == "accuracy" else "median")
    return f"{name} after {steps} inner step{'s' if steps != '1' else ''}" if steps else name


def _joined(runs: list[Run]) -> list[Run]:
    """Return the runs, with each evaluation of one of them in its place `beside`. An evaluation of several runs stays by itself."""
    beside: dict[Path, list[Evaluation]] = {run.folder.resolve(): [] for run in runs if run.evaluation is None}
    left: list[Run] = []
    for run in runs:
        of = [Path(path).parent.parent for path in run.evaluation.checkpoints] if run.evaluation is not None else []
        folder = _same_folder(of[0], beside) if len(of) == 1 else None
        if folder is not None and run.evaluation is not None:
            beside[folder].append(run.evaluation)
        else:
            left.append(run)
    return [replace(run, beside=(*run.beside, *beside.get(run.folder.resolve(), ()))) for run in left]


def _same_folder(named: Path, folders: Iterable[Path]) -> Path | None:
    """Return the folder that a report names. A sweep that was copied to another place keeps the names of its folder and its jobs."""
    known = list(folders)
    exact = [folder for folder in known if folder == named.absolute()]
    alike = [folder for folder in known if folder.parts[-2:] == named.parts[-2:]]
    return exact[0] if exact else alike[0] if len(alike) == 1 else None
