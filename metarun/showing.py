"""Pictures of the first validation episode in TensorBoard, each time the run is validated."""

from __future__ import annotations

from typing import Any

from metarun.engine import Position, Settings
from metarun.evaluation import Report
from metarun.tracking import Tracker
from metarun.types import Algorithm, TaskSource


class Showing:
    """Shows validations; `last` is the summary of the latest one."""

    def __init__(self, algorithm: Algorithm, source: TaskSource, tracker: Tracker, settings: Settings) -> None:
        self.algorithm, self.source, self.tracker, self.settings = algorithm, source, tracker, settings
        self.last: dict[str, Any] | None = None

    def show(self, position: Position, report: Report) -> None:
        """Note the report; draw the episode where somebody would see it."""
        self.last = report.summary()
