"""The logger `trackio`: a local database of runs, or a Hugging Face Space.

A resumed run replaces the run of the stopped training in the local database, and begins with the history in `metrics.jsonl`; so each value
stands there once. The pictures of the stopped training are gone from it. On a Space, the run goes on, and repeated steps stand there twice.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from metarun.records.loggers.identity import known_id, note, sweep_of
from metarun.records.loggers.logger import RunStart
from metarun.records.loggers.packages import package, picture_of
from metarun.records.loggers.params import flatten
from metarun.values import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trackio:
    """Logs to Trackio. The keys are explained in `configs/logger/trackio.yaml`."""

    draws_figures = True

    def __init__(self, project: Text = "metarun", group: Text | None = None, space_id: Text | None = None) -> None:
        self.project, self.group, self.space_id = project, group, space_id

    def start(self, run: RunStart) -> None:
        """Open the run; a local run that is resumed begins anew with its history."""
        self._trackio = package("trackio", "trackio")
        resumed = run.resume_step is not None
        known = known_id(run, "trackio")  # not the name: a run of another folder may have it too
        for each in self._trackio.Api().runs(self.project) if known and self.space_id is None else ():
            if each.id == known:
                each.delete()
        with _quiet():
            self._run = self._trackio.init(
                project=self.project,
                name=run.name,
                group=self.group or sweep_of(run),
                space_id=self.space_id,
                config=dict(flatten(run.config)),
                resume="allow" if resumed and self.space_id else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        note(run, "trackio", self._run.id)
        for step, values in run.history() if self.space_id is None else ():
            self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the finite values."""
        self._run.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Log a picture."""
        self._run.log({tag: self._trackio.Image(picture_of(figure))}, step=step)

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the final metrics."""
        self.log(step, metrics)

    def sync(self) -> None:
        """Nothing: a thread of the library writes the values."""

    def close(self) -> None:
        """Write the pending values and end the run."""
        with _quiet():
            self._trackio.finish()  # not `self._run.finish`: the package would finish the run again when the process ends


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Keep what the library prints away from the output of the training; it raises or warns where something is wrong."""
    return contextlib.redirect_stdout(io.StringIO())
