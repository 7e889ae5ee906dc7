"""What a report knows about one run: its configs, its log, its stored evaluation, and the scores by episode. Plain values from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarun.commands.comparing.reading import mapping, number


@dataclass(frozen=True)
class Entry:
    """A run with one evaluation, or an evaluation alone.

    name: by the keys that differ among the runs. group: the same without the seed; runs of one group differ in the seed alone.
    folder: of the run, None where only an evaluation is known. differing: key -> value for the keys whose values differ among the
    runs. typed: the overrides of the run. training: its report.json. history: the lines of its metrics.jsonl. report: the report.json of
    the evaluation, {} without one. evaluation: its folder. scores: by episode, None where a score is not finite. dealt: equal
    where two evaluations have scored the same episodes. status: "finished", "running", "stopped" or "failed". seconds: of the training.
    """

    name: str
    group: str
    seed: int | None = None
    folder: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    differing: Mapping[str, str] = field(default_factory=dict)
    typed: Sequence[str] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Path | None = None
    scores: Sequence[float | None] = ()
    dealt: tuple[Any, ...] = ()
    status: str = "finished"
    seconds: float | None = None

    @property
    def metric(self) -> str:
        """The metric of the evaluation; without one, that of the training."""
        return str(self.report.get("metric") or self.training.get("metric") or "score")

    @property
    def scored(self) -> bool:
        """Whether there is an evaluation."""
        return bool(self.report.get("episodes"))

    @property
    def mean(self) -> float | None:
        """The mean score; None where it is not finite or where there is none."""
        return number(self.report.get("mean"))

    @property
    def half(self) -> float | None:
        """Half the interval of the mean."""
        return number(self.report.get("ci95"))

    @property
    def best(self) -> Mapping[str, Any]:
        """The best validation: score, mean and step; {} without one."""
        return mapping(self.training.get("best"))

    @property
    def options(self) -> dict[str, str]:
        """The names of the options of the run: algo, task, backbone."""
        options = mapping(self.config.get("options") or mapping(self.report.get("config")).get("options"))
        return {key: str(value) for key, value in options.items() if value is not None}


def sequence(value: Any) -> Sequence[Any]:
    """Return a list out of a file; () for every other value."""
    return value if isinstance(value, (list, tuple)) else ()


def numbers_of(value: Any) -> list[float | None]:
    """Return the numbers of a list out of a file; None in the place of one that is missing or not finite."""
    return [number(each) for each in sequence(value)]


def groups_of(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries by group, in the order of the first of each."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry)
    return found
