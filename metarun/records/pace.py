"""The time that a run still takes, from the speed of its finished steps and validations."""

from __future__ import annotations

HALF_LIFE = 30.0
"""Seconds after which a step counts half: a machine may become slower or faster in the middle of a run."""
LEAST_SECONDS, LEAST_STEPS = 0.5, 10
"""The estimate begins after so many measured seconds, or after so many measured steps."""
GUESS = 0.5
"""Before the first validation: the time of its task, as a share of the time of a training task, which also has a backward pass."""


class Pace:
    """Estimates the seconds that are left. The caller measures, and leaves out what happens once, such as compiling.

    steps: of the whole run. start: the first step of a resumed run. validate_every: steps between validations; 0 for one at the end alone,
    None for none. validation: the size of a validation in steps, as its tasks divided by those of a step.
    """

    def __init__(self, steps: int, start: int = 0, *, validate_every: int | None = None, validation: float = 0.0) -> None:
        self.steps, self.validate_every, self.validation = steps, validate_every, validation
        self._last = start
        self._seconds = self._steps = 0.0  # of recent steps; older ones count less
        self._measured_seconds = self._measured_steps = 0.0
        self._validations: list[float] = []

    def step(self, step: int, seconds: float) -> None:
        """Note that the steps up to `step` took so many seconds."""
        taken, self._last = step - self._last, step
        fading = 0.5 ** (seconds / HALF_LIFE)
        self._seconds, self._steps = self._seconds * fading + seconds, self._steps * fading + taken
        self._measured_seconds += seconds
        self._measured_steps += taken

    def skip(self, step: int) -> None:
        """Leave out the steps up to `step`, such as the first one, which warms up."""
        self._last = step

    def validated(self, seconds: float) -> None:
        """Note the seconds of a validation."""
        self._validations.append(seconds)

    def left(self, step: int) -> float | None:
        """Return the seconds from `step` to the end; None while too little is measured."""
        if self._measured_seconds < LEAST_SECONDS and self._measured_steps < LEAST_STEPS:
            return None
        each = self._seconds / max(self._steps, 1e-9)
        validation = sum(self._validations) / len(self._validations) if self._validations else GUESS * self.validation * each
        return each * max(self.steps - step, 0) + validation * self.validations_after(step)

    def validations_after(self, step: int) -> int:
        """Return the number of validations after `step`. The last step always has one."""
        if self.validate_every is None or step >= self.steps:
            return 0
        if self.validate_every == 0:
            return 1
        return self.steps // self.validate_every - step // self.validate_every + (self.steps % self.validate_every > 0)


def clock_text(seconds: float) -> str:
    """Return a duration such as 03:12, 1:02:03 or 2 d 05:10 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minutes:02} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
