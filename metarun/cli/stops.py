"""A signal ends a sweep: the jobs at hand save, no further job begins, and the command says how to go on.

Where a launcher runs the jobs in other processes (joblib, submitit on this machine), the command passes the signal on to them, and leaves a
mark in the sweep's folder, which each job reads before it begins. The processes inherit that signals are blocked, and the jobs keep SIGINT
blocked: Ctrl-C reaches every process of a terminal, and a job must hear of it once. Jobs in the queue of a cluster go on without the
command, and one of them that is stopped keeps no other from beginning.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarun.cli.signals import handle_signals, raise_signalled
from metarun.compute.stops import STOPS
from metarun.engine.interrupt import is_ignored, say_at_once
from metarun.errors import Stopped, signal_name
from metarun.files.commands import program
from metarun.files.lock import owner_here
from metarun.files.paths import word

MARK = ".stopped"
"""The file in a sweep's folder that holds the number of the signal that ended the sweep."""
IN_PROCESS, IN_QUEUE = "BasicLauncher", "SlurmLauncher"
"""The classes of the launchers that run the jobs in the command's own process, and in the queue of a cluster."""


@dataclass(frozen=True)
class Unfinished:
    """What a job in another process returns where a signal stopped it, or kept it from beginning. number: of the signal."""

    number: int

    def __float__(self) -> float:
        """Raise Stopped, since a sweeper that asks for the error must not go on."""
        raise Stopped(self.number)


class SweepWatch:
    """Hears the signals of a command that runs a sweep, from `begin` to `end`.

    sweep: the folder of the sweep. launcher: the class of the launcher.
    """

    def __init__(self, sweep: Path, launcher: str) -> None:
        self.sweep, self.launcher = sweep, launcher
        self._ended = False
        self._mask: Any = None
        self._heard: list[signal.Signals] = []
        self._before: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Forget an earlier stop; with jobs in other processes of this machine, block the signals and wait for them in a thread."""
        with contextlib.suppress(OSError):
            (self.sweep / MARK).unlink()
        if self.launcher in (IN_PROCESS, IN_QUEUE) or threading.current_thread() is not threading.main_thread():
            return
        self._heard = heard = [number for number in STOPS if not is_ignored(number)]
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
        # A thread of a library, made before, may get the signal instead; Python then calls the handler in the main thread.
        self._before = {number: signal.signal(number, lambda number, _: self.hear(number)) for number in heard}
        self._thread = threading.Thread(target=self._wait, args=(heard,), name="sweep", daemon=True)
        self._thread.start()

    def _wait(self, heard: Sequence[int]) -> None:
        while not self._ended:
            number = signal.sigwait(heard)
            if not self._ended:
                self.hear(number)

    def hear(self, number: int) -> None:
        """Stop the jobs: they save; at a second Ctrl-C they end at once, and so does the command."""
        if self._ended:
            raise KeyboardInterrupt
        if stop_of(self.sweep) is None:
            mark(self.sweep, number)
            say_at_once(f"metarun: {signal_name(number)}: the jobs at hand save, and no further job begins; another Ctrl-C ends them.")
            signal_jobs(self.sweep, signal.SIGTERM)
        elif number == signal.SIGINT:
            signal_jobs(self.sweep, signal.SIGKILL)
            self._ended = True
            _thread.interrupt_main(signal.SIGINT)

    def end(self) -> None:
        """Give the signals back."""
        self._ended = True
        if self._thread is None:
            return
        if self._thread.is_alive() and self._thread.ident is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(self._thread.ident, self._heard[0])  # wakes the thread, which ends
        self._thread.join(5)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._thread = None


def mark(sweep: Path, number: int) -> None:
    """Note in a sweep's folder that a signal ended the sweep; the first signal counts."""
    with contextlib.suppress(OSError), (sweep / MARK).open("x", encoding="ascii") as file:
        file.write(str(int(number)))


def stop_of(sweep: Path) -> int | None:
    """Return the number of the signal that ended a sweep, or None."""
    with contextlib.suppress(OSError, ValueError):
        return int((sweep / MARK).read_text(encoding="ascii") or signal.SIGTERM)
    return None


def signal_jobs(sweep: Path, number: int) -> None:
    """Send a signal to the processes of this machine that run jobs of the sweep: the owners of the run folders."""
    for folder in sweep.iterdir() if sweep.is_dir() else ():
        pid = owner_here(folder)
        if pid is not None and pid != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(pid, number)


def in_queue() -> bool:
    """Return whether the job that runs here came from the queue of a cluster."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def check_going_on(sweep: Path) -> None:
    """Raise Stopped before a job begins whose sweep a signal has ended."""
    number = None if in_queue() else stop_of(sweep)
    if number is not None:
        raise Stopped(number)


def hear_signals() -> None:
    """Let a job in another process hear all signals except SIGINT, which the command passes on; a job of a queue hears SIGINT too.

    The handlers of the launcher stay, except that of SIGTERM.
    """
    if threading.current_thread() is threading.main_thread():
        signal.pthread_sigmask(signal.SIG_UNBLOCK if in_queue() else signal.SIG_BLOCK, [signal.SIGINT])
        handle_signals()
        signal.signal(signal.SIGTERM, raise_signalled)  # submitit lets a job ignore it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number for number in STOPS if number != signal.SIGINT])


def leave(stop: KeyboardInterrupt, sweep: Path) -> Unfinished:
    """End a job in another process that a signal stopped, after it has saved.

    The launcher's own handler of the signal comes first: that of submitit queues the job again and ends this process.
    """
    number = int(getattr(stop, "number", signal.SIGINT))
    handler: Any = signal.getsignal(number)
    if callable(handler) and handler not in (raise_signalled, signal.default_int_handler):
        try:
            handler(number, None)
        except Exception as refused:
            print(f"metarun: {refused}", file=sys.stderr, flush=True)
    mark(sweep, number)
    return Unfinished(number)


def how_to_go_on(command: str, arguments: Sequence[str], sweep: Path, number: int, launcher: str = IN_PROCESS) -> str:
    """Return the line about a sweep that a signal ended. arguments: the words of the command line after the command."""
    said = f"metarun: {signal_name(number)} ended the sweep"
    if command != "train":
        return f"{said}; its results so far are in {sweep}"
    kept = [each for each in arguments if not each.lstrip("+").startswith(("resume=", "hydra.sweep.dir="))]
    again = f"{program()} {shlex.join([command, *kept, 'resume=auto'])}"
    queue = "; its jobs stay in the queue (squeue lists them, scancel ends them)" if launcher == IN_QUEUE else ""
    return f"{said}{queue}; finish it with: {again} {word('hydra.sweep.dir', sweep)}"
