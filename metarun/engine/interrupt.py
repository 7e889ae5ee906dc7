"""Turn the signals that ask a program to stop into a request to stop after the current step, or in the middle of a validation."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from metarun.compute.stops import STOPS
from metarun.processes.ranks import Ranks


def is_ignored(number: int) -> bool:
    """Return whether the process ignores a signal on purpose, as `nohup` lets it ignore SIGHUP.

    A shell lets a program in the background of a script ignore SIGINT; nobody asked for that, so SIGINT never counts as ignored.
    """
    return number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN


def say_at_once(text: str) -> None:
    """Write a line to stderr inside of a signal handler, where print() might interrupt another print(). A bar on the line stays."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a file, or a closed one
        os.write(sys.stderr.fileno(), f"{chr(10) if sys.stderr.isatty() else ''}{text}\n".encode())


class BrokenOff(KeyboardInterrupt):
    """A signal asked for a stop in a block that `Interrupt.breaking` lets a signal break off."""


class Interrupt:
    """In `with`, the first signal of `STOPS` sets `number`. After it, SIGINT raises KeyboardInterrupt, as it does by default.

    Signals that the process ignores stay ignored. Outside of the main thread, the signals keep their handlers.
    told: a function that the first signal calls at once, with its number, in the middle of any statement.
    """

    def __init__(self, told: Callable[[int], None] | None = None) -> None:
        self.number: int | None = None
        self._told = told
        self._before: dict[int, Any] = {}
        self._breaks = False

    @property
    def stopped(self) -> bool:
        """Whether a signal asked for a stop."""
        return self.number is not None

    def reached(self, ranks: Ranks) -> bool:
        """Return whether a signal has reached one of the processes, and note it in each of them."""
        agreed = ranks.agree(self.number or 0)
        if agreed and self.number is None:  # a signal that arrives meanwhile stays noted, for the next time
            self.number = agreed
        return agreed > 0

    @contextlib.contextmanager
    def breaking(self, allowed: bool = True) -> Iterator[None]:
        """In the `with` block, the first signal raises BrokenOff at once. One that came before raises it at the start of the block.

        allowed: False for a block without effect.
        """
        self._breaks = allowed
        try:
            if allowed and self.stopped:
                raise BrokenOff
            yield
        finally:
            self._breaks = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if not is_ignored(number):
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.number is None:
            self.number = number
            if self._told is not None:
                self._told(number)
            if self._breaks:
                raise BrokenOff
