"""What a person sees while a command works: one line at the bottom of a terminal, and messages above it; elsewhere, plain lines.

All of it goes to stderr. A command says what it does by `with doing("reading 1,623 images"): ...`. A terminal shows this text while it
lasts. Elsewhere a line tells what takes long.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from metarun.records.pace import clock_text

FIRST, LONG = 0.4, 10.0
"""Seconds after which a terminal shows an activity, and after which a file gets a line about it."""
EVERY, LEAST = 1.0, 0.1
"""Seconds between two paintings of a terminal's line while nothing new happens, and the least seconds between two paintings."""
USUAL_WIDTH = 80


class Activity:
    """Something that takes place beside the steps of a run."""

    def __init__(self, text: str) -> None:
        self.text, self.since, self.told = text, time.monotonic(), False

    @property
    def seconds(self) -> float:
        """For how long it has taken place."""
        return time.monotonic() - self.since


class Display:
    """The line at the bottom of a stream's terminal, and the activities that it tells.

    terminal: whether the stream is a terminal whose line can be painted over. aside: seconds of the activities that have ended; an activity
    inside of another one counts once.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = can_repaint(stream)
        self.aside = 0.0
        self._activities: list[Activity] = []
        self._bars: list[Callable[[int, str | None], str]] = []
        self._lock = threading.RLock()
        self._line: Any = None
        self._painted = 0.0
        self._watch: threading.Thread | None = None

    @property
    def width(self) -> int:
        """The letters of a line. The last column stays empty, since a letter there moves some terminals to the next line."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = 0
        return (columns or USUAL_WIDTH) - 1

    @contextlib.contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Tell what takes place in the `with` block."""
        activity = Activity(text)
        self._activities.append(activity)
        self._keep_watch()
        try:
            yield
        finally:
            outermost = self._activities[0] is activity
            self._activities.remove(activity)
            self.aside += activity.seconds if outermost else 0.0
            self.refresh()

    @contextlib.contextmanager
    def showing(self, bar: Callable[[int, str | None], str]) -> Iterator[None]:
        """Show a progress in the `with` block. bar: its line, from the width and from what takes place beside the steps."""
        self._bars.append(bar)
        self._keep_watch()
        try:
            yield
        finally:
            self._bars.remove(bar)
            self.refresh()

    def refresh(self, *, now: bool = True) -> None:
        """Paint the line. now: False to leave it as it is where it is still fresh."""
        if not self.terminal or (not now and time.monotonic() - self._painted < LEAST):
            return
        with self._lock, contextlib.suppress(Exception):  # such as a closed stream: what a person sees must not end a run
            self._painted = time.monotonic()
            text = self.text()
            if text and self._line is None:
                self._line = _line(self.stream, self.text)
            elif text:
                self._line.refresh()
            elif self._line is not None:
                self._line.close()
                self._line = None
                self.stream.write(f"\r{' ' * self.width}\r")  # a terminal adds ^C to the line at Ctrl-C
                self.stream.flush()  # before another stream writes to the same terminal

    def say(self, text: str, stream: TextIO | None = None) -> None:
        """Print a line above the one at the bottom. stream: another one that may be the same terminal, such as stdout."""
        with self._lock:
            if self._line is None:
                print(text, file=stream or self.stream, flush=True)
            else:
                self._line.write(text, file=stream or self.stream)

    def text(self) -> str:
        """Return the line at the bottom; empty where nothing takes place."""
        activity = self.activity()
        shown = activity is not None and activity.seconds >= FIRST
        words = f"{activity.text} … {clock_text(activity.seconds)}" if activity is not None and shown else None
        bar = next(reversed(self._bars), None)
        if bar is not None:
            return bar(self.width, words)
        return "" if words is None else f"metarun: {words}"[: self.width]

    def activity(self) -> Activity | None:
        """Return what takes place now: the innermost activity."""
        return next(reversed(self._activities), None)  # another thread may end the last one meanwhile

    def _keep_watch(self) -> None:
        """Start the thread that paints while the command computes."""
        with self._lock:
            if self._watch is None:
                self._watch = threading.Thread(target=self._look, name="metarun-display", daemon=True)
                self._watch.start()

    def _look(self) -> None:
        while True:
            time.sleep(FIRST if self._line is None else EVERY)
            with self._lock:
                if not (self._activities or self._bars):
                    self._watch = None
                    return
            self.refresh()
            self._tell_long()

    def _tell_long(self) -> None:
        """Elsewhere than on a terminal, print a line about an activity that takes long."""
        activity = self.activity()
        if not self.terminal and activity is not None and not activity.told and activity.seconds >= LONG:
            activity.told = True
            self.say(f"metarun: {activity.text} …")


def can_repaint(stream: TextIO) -> bool:
    """Return whether a stream is a terminal whose line can be painted over."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


_displays: list[Display] = []


def display() -> Display:
    """Return the display of stderr."""
    if not _displays or _displays[0].stream is not sys.stderr:
        _displays[:] = [Display(sys.stderr)]
    return _displays[0]


@contextlib.contextmanager
def doing(text: str) -> Iterator[None]:
    """Tell what takes place in the `with` block, such as "reading 1,623 images"."""
    with display().doing(text):
        yield


def _line(stream: TextIO, text: Callable[[], str]) -> Any:
    from tqdm import tqdm

    class Line(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread of tqdm's

        def __str__(self) -> str:
            return text()

        def display(self, *args: Any, **options: Any) -> None:
            with contextlib.suppress(Exception):  # tqdm would keep its lock, and the next painting would wait for ever
                super().display(*args, **options)

    return Line(file=stream, leave=False)
