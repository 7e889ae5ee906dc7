"""A logger that cannot end a training: a failure costs a warning, and the values go to the logger later."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from metarun.errors import UserError, first_line
from metarun.records.loggers.logger import Logger, RunStart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("metarun")

PAUSE, LONGEST_PAUSE = 30.0, 600.0
"""Seconds until the next attempt after a failure. Each further failure doubles them, up to the longest pause."""
KEPT = 100_000
"""Most lines that wait for a logger that fails. The oldest ones are dropped first; `metrics.jsonl` has them all."""


class Guarded:
    """Calls a logger, one thread at a time. Values that it did not take wait for the next attempt; pictures do not wait.

    name: of the logger, for messages. clock: seconds, for tests.
    """

    def __init__(self, name: str, logger: Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self._logger, self._clock = name, logger, clock
        self._waiting: deque[tuple[int, dict[str, float]]] = deque(maxlen=KEPT)
        self._lock = threading.RLock()
        self._pause, self._next_attempt, self._warned = PAUSE, float("-inf"), False

    @property
    def draws_figures(self) -> bool:
        """As the logger's."""
        return self._logger.draws_figures

    def start(self, run: RunStart) -> None:
        """Start the logger. Raises UserError for every failure: the training has not begun, so the user can mend the cause."""
        try:
            self._logger.start(run)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the logger {self.name} cannot start: {_described(error)}; mend this, or choose another with logger=…"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over the values, after those that still wait."""
        with self._lock:
            self._waiting.append((step, dict(values)))
            if self._clock() >= self._next_attempt:
                self._send()

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Hand over a picture, unless the logger failed a moment ago."""
        with self._lock:
            if self._clock() >= self._next_attempt:
                with self._survived():
                    self._logger.figure(step, tag, figure)

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand over what waits, and then the final metrics."""
        with self._lock:
            if self._send():
                with self._survived():
                    self._logger.result(step, metrics)

    def sync(self) -> None:
        """Let the logger write its pending values, unless it failed a moment ago."""
        with self._lock:
            if self._clock() >= self._next_attempt:
                with self._survived():
                    self._logger.sync()

    def close(self) -> None:
        """Hand over what waits, and close the logger."""
        with self._lock:
            sent = self._send()
            with self._survived():
                self._logger.close()
            if not sent:
                lost = len(self._waiting)
                log.warning("the logger %s misses the last %d lines of this run; metrics.jsonl has them.", self.name, lost)
                self._waiting.clear()

    def _send(self) -> bool:
        """Hand over what waits; return whether the logger took it all."""
        while self._waiting:
            taken = False
            with self._survived():
                self._logger.log(*self._waiting[0])
                taken = True
            if not taken:
                return False
            self._waiting.popleft()
            self._pause, self._next_attempt = PAUSE, float("-inf")
        return True

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Turn an exception into one warning for the whole run, and wait before the next attempt."""
        try:
            yield
        except Exception as error:
            self._next_attempt = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            if not self._warned:
                self._warned = True
                log.warning(
                    "the logger %s failed: %s. The training goes on, metrics.jsonl has every value, and metarun tries the logger again.",
                    *(self.name, _described(error)),
                )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}".rstrip(".: ")
