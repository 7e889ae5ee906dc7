"""Jobs of a sweep in other processes: a worker ends when the process that runs the command has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

COMMAND = "METARUN_COMMAND"
"""The environment variable that holds the process id of the command; workers inherit it."""
_EVERY, _PATIENCE = 1.0, 60.0
"""Seconds between two looks at the parent; seconds that a job gets to save and stop."""


class Watch:
    """Looks whether the parent process is alive, and ends this process when it is not."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.busy = threading.Lock()
        threading.Thread(target=self._look, name="parent", daemon=True).start()

    def _look(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(_EVERY)
        if self.busy.locked():
            os.kill(os.getpid(), signal.SIGTERM)  # a training saves and stops, as at Ctrl-C
            self.busy.acquire(timeout=_PATIENCE)
        os._exit(128 + signal.SIGTERM)


_watches: dict[int, Watch] = {}


_command: list[int] = []
"""The process id of the command, in its own process."""


def note_command() -> None:
    """Note in the environment that this process runs the command."""
    os.environ[COMMAND] = str(os.getpid())
    _command[:] = [os.getpid()]


def in_other_process() -> bool:
    """Return whether a launcher runs a job here, in another process than the command's, on this machine or on another one."""
    return _command != [os.getpid()]


def is_worker() -> bool:
    """Return whether this process is a child of the process that runs the command."""
    return os.environ.get(COMMAND) == str(os.getppid())


def is_queued() -> bool:
    """Return whether submitit runs a job here."""
    return in_other_process() and "SUBMITIT_EXECUTOR" in os.environ


@contextlib.contextmanager
def ending_with_command() -> Iterator[None]:
    """Run a job in the `with` block; in a worker, the job stops and the process ends when the command's process has ended."""
    if not is_worker():
        yield
        return
    if os.getpid() not in _watches:
        _watches[os.getpid()] = Watch(os.getppid())
    with _watches[os.getpid()].busy:
        yield
