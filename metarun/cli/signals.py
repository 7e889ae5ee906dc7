"""The signals that end a command while no training takes its steps: the command cleans up as at Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

from metarun.compute.stops import STOPS
from metarun.engine.interrupt import is_ignored


class Signalled(KeyboardInterrupt):
    """Ends a command that a signal other than SIGINT met. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = int(number)


def handle_signals() -> None:
    """Let each signal of `STOPS` raise an exception, unless the process ignores the signal, or has a handler for it.

    While a training takes its steps, `metarun.engine.interrupt` handles the signals.
    """
    for number in STOPS:
        if number == signal.SIGINT:
            if signal.getsignal(number) in (signal.SIG_IGN, signal.SIG_DFL):
                signal.signal(number, signal.default_int_handler)
        elif not is_ignored(number) and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, raise_signalled)


def raise_signalled(number: int, _: FrameType | None) -> NoReturn:
    """Handle a signal: raise `Signalled`."""
    raise Signalled(number)
