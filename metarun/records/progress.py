"""The progress display of training and evaluation."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, TextIO

from metarun.values import plain


class Progress:
    """Shows the latest values and the time left: as a bar on a terminal, as lines elsewhere. Both go to stderr.

    steps: the steps of the whole run. start: the first step of a resumed run. every: least seconds between two lines.
    """

    def __init__(self, steps: int, start: int = 0, *, every: float = 5.0, stream: TextIO | None = None) -> None:
        self.steps, self.start, self.every = steps, start, every
        self._stream = sys.stderr if stream is None else stream
        self._shown: dict[str, Any] = {}
        self._begun, self._printed = time.monotonic(), -math.inf
        self._bar = self._make_bar() if self._stream.isatty() else None

    def update(self, step: int, **shown: Any) -> None:
        """Show that `step` steps are done, and the latest values. Numbers get 4 digits; text stays as it is."""
        self._shown.update(shown)
        if self._bar is not None:
            if shown:
                self._bar.set_postfix_str("  ".join(self._texts()), refresh=False)
            self._bar.update(step - self._bar.n)
        elif shown and (step >= self.steps or time.monotonic() - self._printed >= self.every):
            self._printed = time.monotonic()
            print("  ".join([f"step {step}/{self.steps}", *self._texts(), self._left(step)]), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Keep the bar on the screen, and go to the next line."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_bar(self) -> Any:
        from tqdm import tqdm

        form = "{percentage:3.0f}% {bar} {n}/{total}  {postfix}  {remaining} left"
        return tqdm(total=self.steps, initial=self.start, file=self._stream, dynamic_ncols=True, bar_format=form, mininterval=0.2)

    def _texts(self) -> list[str]:
        words = {name: value if isinstance(value, str) else plain(float(value)) for name, value in self._shown.items()}
        return [f"{word} {name}" if name == "tasks/s" else f"{name} {word}" for name, word in words.items()]

    def _left(self, step: int) -> str:
        done = max(step - self.start, 1)
        seconds = round((time.monotonic() - self._begun) / done * max(self.steps - step, 0))
        hours, rest = divmod(seconds, 3600)
        return (f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}") + " left"
