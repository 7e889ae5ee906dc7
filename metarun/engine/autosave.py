"""When to save: at steps of the schedule, and by the clock in between."""

from __future__ import annotations

import time
from collections.abc import Callable


class Autosave:
    """Decides after each step whether to save. The decision changes no number of the training.

    every: outer steps between checkpoints; 0 for never. minutes: the most minutes between two checkpoints; None or 0 for no clock.
    busy: whether an earlier checkpoint is still on its way to the disk; the clock then waits, so that a slow disk gets one at a time.
    now: the time in seconds.
    """

    def __init__(
        self,
        every: int,
        minutes: float | None,
        busy: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every, self.seconds, self._busy, self._now = every, 60 * (minutes or 0), busy, now
        self._saved = now()

    def due(self, step: int) -> bool:
        """Return whether to save after this step. The caller then saves, so the clock starts anew."""
        scheduled = self.every > 0 and step % self.every == 0
        due = scheduled or (self.seconds > 0 and self._now() - self._saved >= self.seconds and not self._busy())
        if due:
            self._saved = self._now()
        return due
