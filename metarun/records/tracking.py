"""The record of a run, `metrics.jsonl`, and the loggers that get the same values."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.errors import UserError
from metarun.files.commands import command
from metarun.files.paths import word
from metarun.files.run_folder import METRICS
from metarun.files.writing import check_place, open_to_append, open_to_read, write_whole
from metarun.records.loggers.guarded import Guarded
from metarun.records.loggers.logger import Logger, RunStart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIME_KEYS = ("time", "speed/tasks_per_second", "speed/share_of_time_waiting_for_episodes")
"""Keys whose values may differ between two equal runs."""
EARLIER_KEYS = {
    "tasks_per_second": "speed/tasks_per_second",
    "waiting": "speed/share_of_time_waiting_for_episodes",
    "train/tasks": "speed/tasks_averaged",
}
"""Names in the `metrics.jsonl` of earlier versions, and their names today."""


class Tracker:
    """Writes the numbers of one run into `metrics.jsonl` in its folder, and hands numbers, pictures and final metrics to loggers.

    folder: the run folder. resume_step: None for a new run. For a resumed run, its step: the tracker deletes the values that the killed run
    logged after it. config, typed: as in `RunStart`. loggers: by name; None stands for no logger.

    Raises UserError if the folder cannot be written, if a new run would overwrite the metrics of another run, or if a logger cannot start.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        resume_step: int | None = None,
        config: Mapping[str, Any] | None = None,
        typed: Mapping[str, Any] | None = None,
        **loggers: Logger | None,
    ) -> None:
        self.folder = Path(folder)
        self._loggers = [Guarded(name, _checked(name, each)) for name, each in loggers.items() if each is not None]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = _cut_back(self.folder / METRICS, resume_step)
            self._file = open_to_append(self.folder / METRICS)
        except OSError as error:
            raise UserError(f"cannot write into the run folder {self.folder}: {error.strerror}.") from error
        self._start = time.monotonic() - kept
        self._open_loggers(RunStart(self.folder, resume_step, config or {}, typed or {}, self._history))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line: the step, the values, and the seconds of training so far. A non-finite value becomes null."""
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": step, **{name: value if math.isfinite(value) else None for name, value in numbers.items()}}
        line["time"] = round(time.monotonic() - self._start, 3)
        self._file.write(f"{json.dumps(line)}\n".encode())
        self._file.flush()
        for logger in self._loggers:
            logger.log(step, numbers)

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Give a picture to the loggers that show pictures, and clear the picture."""
        for logger in self._loggers:
            if logger.draws_figures:
                logger.figure(step, tag, figure)
        figure.clear()

    @property
    def draws_figures(self) -> bool:
        """Whether a logger shows figures; if not, callers need not draw any."""
        return any(logger.draws_figures for logger in self._loggers)

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give the final metrics of a finished run to the loggers. TensorBoard shows them in its tab HPARAMS."""
        for logger in self._loggers:
            logger.result(step, {name: float(value) for name, value in metrics.items()})

    def sync(self) -> None:
        """Force the logged values to disk, so that a checkpoint written afterwards is never ahead of the log.

        Another thread may call `sync` while this thread logs. `sync` covers at least the values that were logged before the call.
        """
        os.fsync(self._file.fileno())
        for logger in self._loggers:
            logger.sync()

    def close(self) -> None:
        """Write the pending values and close the files and the loggers; a second call does nothing."""
        self._file.close()
        loggers, self._loggers = self._loggers, []
        for logger in loggers:
            logger.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_loggers(self, run: RunStart) -> None:
        """Start the loggers. Where one cannot start, close the others, and remove the empty record of a new run."""
        started: list[Guarded] = []
        try:
            for logger in self._loggers:
                logger.start(run)
                started.append(logger)
        except BaseException:
            self._loggers = started
            self.close()
            if run.resume_step is None:
                with contextlib.suppress(OSError):
                    (self.folder / METRICS).unlink()
            raise

    def _history(self) -> Iterator[tuple[int, dict[str, float]]]:
        with open_to_read(self.folder / METRICS) as file:
            for line in file:
                if (entry := parse_entry(line)) is not None:
                    step = entry.pop("step")
                    entry.pop("time", None)
                    yield step, {name: value for name, value in entry.items() if isinstance(value, (int, float))}


class Silent(Tracker):
    """Writes nothing: the tracker of a process that computes for another one."""

    def __init__(self) -> None:
        self._loggers = []

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _checked(name: str, logger: Any) -> Logger:
    if not callable(getattr(logger, "start", None)):
        raise UserError(f"logger.{name}={logger!r} is no logger; choose one with logger=…, such as logger=tensorboard.")
    checked: Logger = logger
    return checked


def _cut_back(path: Path, resume_step: int | None) -> float:
    """Drop the lines after `resume_step` in one rename, and return the time in the last line kept."""
    check_place(path)
    if not path.exists():
        return 0.0
    with open_to_read(path) as file:
        lines = file.read().splitlines(keepends=True)
    if lines and resume_step is None:
        raise UserError(
            f"{path.parent} holds the metrics of another run; "
            f"choose another folder, or continue that run with: {command('train', word('resume', path.parent))}"
        )
    kept, seconds = [], 0.0
    for line in lines:
        entry = parse_entry(line)
        if entry is not None and resume_step is not None and entry["step"] <= resume_step:
            kept.append(line)
            seconds = float(entry.get("time") or 0.0)
    write_whole(path, b"".join(kept))
    return seconds


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """Parse one line of `metrics.jsonl`, its newline included; None for a line that a kill cut short.

    A value that an earlier version wrote under another name has today's name.
    """
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not (isinstance(entry, dict) and isinstance(entry.get("step"), int)):
        return None
    return {EARLIER_KEYS.get(str(name), str(name)): value for name, value in entry.items()}
