"""What a logger is: the interface that every choice of the group `logger` has. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = "outputs"
"""The folder into which metarun writes runs unless told otherwise."""


def _nothing() -> Iterator[tuple[int, dict[str, float]]]:
    return iter(())


@dataclass(frozen=True)
class RunStart:
    """What a logger learns about the run that starts.

    folder: the run folder. resume_step: None for a new run; for a resumed run, the step of its checkpoint.
    config: the resolved config. typed: dotted key -> value of each key that was typed, or in a sweep of each key that it varies; empty for
    a resumed run. history: yields the step and the finite values of each line that a resumed run keeps in `metrics.jsonl`.
    """

    folder: Path
    resume_step: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    typed: Mapping[str, Any] = field(default_factory=dict)
    history: Callable[[], Iterator[tuple[int, dict[str, float]]]] = _nothing

    @property
    def name(self) -> str:
        """The run folder below `outputs/`, such as "glyphs-maml/2026-11-27_18-00-00"; TensorBoard shows the same name."""
        folder = self.folder.absolute()
        for base in (Path.cwd() / OUTPUTS, Path.cwd()):
            if folder != base and folder.is_relative_to(base):
                return folder.relative_to(base).as_posix()
        return folder.name


class Logger(Protocol):
    """Takes the values of a run. The keys of its YAML file are the arguments of its constructor, which opens nothing.

    metarun calls `start` once, before the training. An exception of `start` ends the run; an exception of another method does not: metarun
    warns, and offers the values again later (`metarun.records.loggers.guarded`). Only one thread at a time calls the methods.
    """

    @property
    def draws_figures(self) -> bool:
        """Whether the logger shows pictures. metarun draws none if no logger does."""

    def start(self, run: RunStart) -> None:
        """Open the logger. Raise UserError where it cannot log, for example because a package is missing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of one line of `metrics.jsonl`. A value may be NaN or infinite."""

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Take a picture. The caller clears the figure afterwards, so the logger must draw it before it returns."""

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the final metrics of a run that has done all its steps."""

    def sync(self) -> None:
        """Write the pending values to disk, as far as the library allows; metarun writes a checkpoint afterwards."""

    def close(self) -> None:
        """Write the pending values and end. metarun calls `close` after a stopped run too, then without a call of `result` before."""
