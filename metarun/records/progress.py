"""The progress display of training and evaluation."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any, TextIO

from metarun.records.display import Display, display
from metarun.records.pace import Pace, clock_text
from metarun.records.progress_line import Shown, line, with_bar


class Progress:
    """Shows the latest values and the time left: as a bar on a terminal, as lines elsewhere. Both go to stderr.

    steps: the steps of the whole run. start: the first step of a resumed run. unit: what a step is. every: least seconds between two lines.
    validate_every, validation: as in `Pace`. keep: whether the last state stays on the terminal.
    """

    def __init__(
        self,
        steps: int,
        start: int = 0,
        *,
        unit: str = "step",
        every: float = 5.0,
        stream: TextIO | None = None,
        validate_every: int | None = None,
        validation: float = 0.0,
        keep: bool = False,
    ) -> None:
        self.steps, self.step, self.unit, self.every, self.keep = steps, start, unit, every, keep
        self.pace = Pace(steps, start, validate_every=validate_every, validation=validation)
        self.display = display() if stream is None else Display(stream)
        self._shown: dict[str, Shown] = {}
        self._validating: float | None = None
        self._updated = time.monotonic()
        self._aside, self._warm = self.display.aside, False
        self._printed, self._pending = -math.inf, False
        self._open = contextlib.ExitStack()
        if self.display.terminal:
            self._open.enter_context(self.display.showing(self.text))

    def update(self, step: int, **shown: Any) -> None:
        """Show that `step` steps are done, and the latest values: numbers or text. A name that begins with "val " is of a validation."""
        self._measure(step)
        for name, value in shown.items():
            self._shown[name] = Shown(value if isinstance(value, str) else float(value), step if name.startswith("val ") else None)
        self._pending |= bool(shown)
        self.display.refresh(now=False)
        if self._pending and not self.display.terminal and step < self.steps and time.monotonic() - self._printed >= self.every:
            self._print()

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        """Measure the validation in the `with` block; its time is none of the steps'."""
        begun, aside = time.monotonic(), self.display.aside
        self._validating = begun
        try:
            yield
        finally:
            self._validating = None
            now = time.monotonic()
            self.pace.validated(now - begun - (self.display.aside - aside))
            self._updated, self._aside = now, self.display.aside

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        self.display.say(text)

    def text(self, width: int | None, doing: str | None = None) -> str:
        """Return the line. width: None for all values, without a bar. doing: what takes place beside the steps."""
        if doing is None and self._validating is not None:
            doing = f"validating … {clock_text(time.monotonic() - self._validating)}"
        left = self.pace.left(self.step) if self.step < self.steps else None
        count = f"{self.unit} {self.step:,}/{self.steps:,}"
        text = line(count, self._shown, step=self.step, width=width, doing=doing, left=None if left is None else clock_text(left))
        return text if width is None else with_bar(text, self.step / max(self.steps, 1), width, unicode=_has_blocks(self.display.stream))

    def close(self) -> None:
        """Print the last values, and end the bar; a second call does nothing."""
        self._open.close()
        if self.display.terminal and self.keep and self._shown:
            self.display.say(line(f"{self.unit} {self.step:,}/{self.steps:,}", self._shown, step=self.step, width=self.display.width))
        elif self._pending and not self.display.terminal:
            self._print()
        self.keep = self._pending = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _measure(self, step: int) -> None:
        """Note the time of the steps since the last update, without that of recording and compiling, and without the first step's."""
        now, aside = time.monotonic(), self.display.aside
        if step > self.step:
            if self._warm:
                self.pace.step(step, max(now - self._updated - (aside - self._aside), 0.0))
            else:
                self.pace.skip(step)
            self.step, self._updated, self._aside, self._warm = step, now, aside, True

    def _print(self) -> None:
        self._printed, self._pending = time.monotonic(), False
        print(self.text(None), file=self.display.stream, flush=True)


def _has_blocks(stream: TextIO) -> bool:
    """Return whether the stream's encoding has the letters of a bar."""
    try:
        "█▏".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True
