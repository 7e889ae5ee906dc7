"""The signals that ask a program to stop. Ctrl-C reaches torch's C++ compiler too, whose end is then no failure of the compiler."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, the end of a job, the end of a terminal, and the signals that Slurm and submitit send before the end of a job."""


class CompilingStopped(KeyboardInterrupt):
    """A signal asked for a stop while torch's compiler worked. The step that needs the program has not begun."""


@contextlib.contextmanager
def noting_stops(*, at_once: bool) -> Iterator[Callable[[], bool]]:
    """Note signals in the `with` block, and yield a function that returns whether one came. The handlers of before still run.

    at_once: raise CompilingStopped after the first signal. Outside of the main thread nothing is noted.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, before[number])
        before[number](number, frame)
        if at_once:
            raise CompilingStopped

    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for noticed, handler in before.items():
            if signal.getsignal(noticed) is note:  # a handler of before may have set another one
                signal.signal(noticed, handler)
