"""The speed of training, measured without evaluations and saves."""

from __future__ import annotations

import time


class Clock:
    """Measures tasks per second between two log lines."""

    def __init__(self, tasks_per_step: int) -> None:
        self.tasks_per_step, self.start, self.waited = tasks_per_step, time.perf_counter(), 0.0

    def read(self, steps: int, waited: float) -> tuple[float, float]:
        """Return tasks per second over the last `steps` steps, and the share of that time spent waiting for episodes; start anew.

        waited: seconds since the beginning of the run.
        """
        now = time.perf_counter()
        passed = max(now - self.start, 1e-9)
        share = (waited - self.waited) / passed
        self.start, self.waited = now, waited
        return steps * self.tasks_per_step / passed, share

    def pause(self) -> None:
        """Leave out the time up to now."""
        self.start = time.perf_counter()
