"""The stored evaluations of a run: report.json with the figures, and beside it episodes.csv with the score of each episode."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.comparing.reading import content_of, json_of, look_up, mapping, number, text_of, yaml_of
from metarun.errors import UserError

REPORT, EPISODES = "report.json", "episodes.csv"
DEFAULTS = {"best": "1", "ensemble": "true", "inner_steps": "null", "norm": "null"}
"""Keys of `metarun eval` that change a score, with the values that change nothing."""
NO_SETTING = ("checkpoint", "save", "trust", "by_step", "overlap", "device", "hydra")
"""Keys and groups of `metarun eval` that change no score."""
_SKIPPED = ("checkpoints", "tensorboard")
_DEPTH = 3


class Scores(NamedTuple):
    """The scores of the episodes of one evaluation, by the number of the episode.

    metric: the name of their column. families: the family of each episode; {} for tasks of one family.
    """

    metric: str
    by_episode: dict[int, float]
    families: dict[int, str]


@dataclass(frozen=True)
class Evaluation:
    """One stored evaluation.

    report: the content of its report.json. settings: what was asked: the split, the number and the seed of the episodes, and the typed keys
    that change a score, each as one types it. file: with the scores by episode; None for episodes.csv in the folder.
    """

    folder: Path
    report: Mapping[str, Any] = field(repr=False)
    settings: Mapping[str, str]
    file: Path | None = None

    @property
    def split(self) -> str:
        """The split of its episodes."""
        return str(self.report.get("split"))

    @property
    def metric(self) -> str:
        """The name of the score, such as accuracy."""
        return str(self.report["metric"])

    @property
    def mean(self) -> float | None:
        """The score; None where it is not finite."""
        return number(self.report.get("mean"))

    @property
    def ci95(self) -> float | None:
        """Half the width of the 95 % interval of the score; None where there is none."""
        return number(self.report.get("ci95"))

    @property
    def config(self) -> Mapping[str, Any]:
        """The config that was scored."""
        return mapping(self.report["config"])

    @property
    def checkpoints(self) -> list[str]:
        """The paths of the checkpoints that were scored, as the report has them."""
        named = self.report.get("checkpoint")
        return [text for text in (named if isinstance(named, list) else [named]) if isinstance(text, str)]

    def scores(self) -> Scores | None:
        """Return the scores of the episodes; None where the evaluation has not written them. Raises UserError as `read_scores` does."""
        file = self.folder / EPISODES if self.file is None else self.file
        return read_scores(file) if file.is_file() else None


def is_evaluation(report: Mapping[str, Any]) -> bool:
    """Return whether a report.json is one of `metarun eval`; training and prediction write files of this name too."""
    return isinstance(report.get("metric"), str) and isinstance(report.get("config"), dict) and {"mean", "ci95", "split"} <= report.keys()


def read_evaluation(folder: Path) -> Evaluation | None:
    """Return the evaluation in a folder; None where there is none."""
    report = json_of(folder / REPORT)
    return Evaluation(folder, report, settings_of(report, folder)) if is_evaluation(report) else None


def score_file(path: Path) -> Evaluation:
    """Return the evaluation that a file of scores stands for, such as one of `metarun eval save=FILE`; UserError for another file.

    Its name is that of the setting, with the seed at the end: memory_0.csv and memory_1.csv are two seeds of "memory".
    """
    metric, by_episode, _ = read_scores(path)
    scores = list(by_episode.values())
    name = path.stem.rstrip("0123456789").rstrip("_-. ") or path.stem
    seed = path.stem[len(name) :].strip("_-. ")
    config = {"options": {"algo": name}, "seed": int(seed) if seed.isdecimal() else None}
    figures = {"metric": metric, "mean": statistics.fmean(scores), "ci95": None, "episodes": len(scores)}
    report = {**figures, "split": None, "config": config}
    return Evaluation(path.parent, report, {}, path)


def evaluations_below(folder: Path, depth: int = _DEPTH) -> list[Evaluation]:
    """Return the evaluations in the folders below a run folder, the oldest first."""
    found: list[tuple[float, Evaluation]] = []
    for inside in _folders(folder):
        if (evaluation := read_evaluation(inside)) is not None:
            found.append((_written(inside / REPORT), evaluation))
        elif depth > 1:
            found += [(_written(each.folder / REPORT), each) for each in evaluations_below(inside, depth - 1)]
    return [evaluation for _, evaluation in sorted(found, key=lambda each: (each[0], str(each[1].folder)))]


def settings_of(report: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return what an evaluation was asked for. Without a note in the report, Hydra's words beside it say it."""
    typed = report.get("settings")
    if not isinstance(typed, dict):  # of an earlier metarun
        typed = typed_words(yaml_of(folder / ".hydra" / "overrides.yaml"))
    return settings(typed, {key: report.get(key) for key in ("split", "episodes", "seed")})


def settings(typed: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of an evaluation. typed: dotted key -> value. request: the split, the number and the seed of the episodes."""
    texts = {str(key): text_of(value) for key, value in typed.items() if str(key).split(".")[0] not in (*NO_SETTING, *request)}
    changing = {key: text for key, text in texts.items() if DEFAULTS.get(key) != text}
    return {key: text_of(value) for key, value in request.items()} | changing


def changing(settings: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings without the keys that have these values in the config of the run anyway."""
    own = {key: look_up(config, key) for key in settings if "." in key}
    own |= {key: mapping(config.get("options")).get(key) for key in ("algo", "task", "backbone") if key in settings}
    own |= {key: look_up(config, _named(key, config)) for key in ("norm", "inner_steps") if key in settings}
    return {key: text for key, text in settings.items() if key not in own or text_of(own[key]) != text}


def _named(key: str, config: Mapping[str, Any]) -> str:
    """Return the key of a run that a key of `metarun eval` sets."""
    if key == "norm":
        return "backbone.norm"
    return f"algo.{'test_inner_steps' if look_up(config, 'algo.test_inner_steps') is not None else 'inner_steps'}"


def asked_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value of the typed keys of an evaluation that change its score, for its report.json.

    config: the keys of `eval.yaml`, with the typed keys under `typed` and the options of the groups under `options`.
    """
    typed = [key for key in config.get("typed", ()) if key.split(".")[0] not in NO_SETTING]
    options = mapping(config.get("options"))
    return {key: options[key] if options.get(key) is not None else look_up(config, key) for key in typed}


def typed_words(words: Any) -> dict[str, Any]:
    """Return dotted key -> value of a list of overrides such as ["algo=maml", "+task.shots=5"]; words of another form are left out."""
    pairs = [str(word).lstrip("+~").partition("=") for word in words or () if "=" in str(word)] if isinstance(words, list) else []
    return {key.replace("@", "."): value.strip("'\"") for key, _, value in pairs}


def read_scores(path: Path) -> Scores:
    """Return the scores in a file that `metarun eval` has written; UserError for another file."""
    try:
        rows = list(csv.reader(io.StringIO(content_of(path).decode("utf-8", "replace"))))
    except csv.Error as error:
        raise UserError(f"'{path}' cannot be read as CSV ({error}).") from error
    head = rows[0] if rows else []
    metrics = [name for name in ("accuracy", "mse") if name in head] or head[1:2]
    if len(rows) < 2 or head[:1] != ["episode"] or not metrics:
        raise UserError(f"'{path}' holds no scores by episode; metarun eval writes such a file as {EPISODES}.")
    place, family = head.index(metrics[0]), head.index("family") if "family" in head else None
    try:
        scores = {int(row[0]): float(row[place]) for row in rows[1:]}
        families = {} if family is None else {int(row[0]): row[family] for row in rows[1:]}
    except (ValueError, IndexError) as error:
        raise UserError(f"'{path}' has a line that is not an episode and its score.") from error
    return Scores(metrics[0], {episode: math.inf if number(score) is None else score for episode, score in scores.items()}, families)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name not in _SKIPPED)
    except OSError:
        return []


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
