"""Checkpoints written while the run goes on: a copy is taken at once, and a thread brings it to the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from metarun.records.checkpoint import Checkpoint, encode, snapshot, write

SNAPSHOTS = 3
"""How many may be in memory at once, the one being written included; with Adam's moments each is three times the parameters."""
PATIENCE = 2.0
"""Seconds that a run which Ctrl-C ended gives its disk."""


class Saver:
    """Does what `checkpoint.save` does, in the order of the calls, and keeps the caller only for a copy of the tensors.

    before: called in the thread before each file is written, such as `Tracker.sync`: what is logged before a call of `save` is then on
        disk before that checkpoint. It must stay valid until the Saver is left.

    Each checkpoint is written, even where a newer one for the same path waits behind it, so the files on disk are always some that
    `checkpoint.save` would have left too, only later. Leaving the `with` waits until everything is on disk.

    What goes wrong in the background is raised once: by the next `save` or `flush`, or on leaving. What waited behind it is dropped, as it
    would never have been asked for had the error come at once.
    """

    def __init__(self, before: Callable[[], object] | None = None) -> None:
        self._before = before
        self._thread: threading.Thread | None = None  # the latest
        self._waiting: list[tuple[Path, Checkpoint]] = []
        self._taken: Checkpoint | None = None  # by the thread, and not encoded yet
        self._running = self._writing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()  # guards all of these

    def save(self, path: str | Path, checkpoint: Checkpoint) -> None:
        """Copy the checkpoint and return; waits only while `SNAPSHOTS` earlier ones are not on disk.

        Raises TypeError, naming the place, where something is neither a plain value nor a tensor; and, in place of saving, what went
        wrong with an earlier save.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) + self._writing < SNAPSHOTS)
            self._raise()
        copied = snapshot(checkpoint)
        with self._changed:
            self._raise()  # what went wrong during the copy; put behind it, this save would be one that nobody asked for
            if not self._running:
                # A daemon, so that a disk which hangs cannot keep the process; and none between saves, so that a fork finds none.
                thread = threading.Thread(target=self._work, name="saver", daemon=True)
                thread.start()  # it looks for what waits when this lock is free, so a start that fails leaves nothing behind
                self._thread, self._running = thread, True
            self._waiting.append((Path(path), copied))
            del copied  # the thread's from here, so that it is free as soon as it is encoded

    def flush(self) -> None:
        """Wait until everything is on disk; raises what went wrong with an earlier save."""
        self._rest()
        self._raise()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self._leave()
            return
        try:
            self._rest()
        except KeyboardInterrupt:
            self._leave()
            raise
        if exception is None:
            self._raise()
        elif self._error is not None:
            exception.add_note(str(self._error))

    def _rest(self, seconds: float | None = None) -> None:
        """Wait until everything is on disk, and the thread gone."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self._running, seconds)
        if done and self._thread is not None:
            self._thread.join()  # which is short now: of a join that Ctrl-C ends, Python takes the thread for ended too

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _leave(self) -> None:
        """Give the disk a moment, then go: the thread ends with the process, and a file that it has not finished is not in place."""
        try:
            self._rest(PATIENCE)
        finally:  # also where a second Ctrl-C ends the patience
            with self._changed:
                self._waiting.clear()
                # The C++ runtime aborts a process that ends while one of its threads is inside torch.save, or frees a tensor.
                self._changed.wait_for(lambda: self._taken is None)

    def _work(self) -> None:
        while (path := self._begin()) is not None:
            error: BaseException | None = None
            try:
                self._write(path)
            except BaseException as caught:
                error = caught
            self._end(error)

    def _begin(self) -> Path | None:
        with self._changed:
            self._running = self._writing = bool(self._waiting)
            if not self._waiting:
                self._changed.notify_all()
                return None
            path, self._taken = self._waiting.pop(0)
            return path

    def _write(self, path: Path) -> None:
        assert self._taken is not None
        content = encode(self._taken)
        with self._changed:
            self._taken = None
            self._changed.notify_all()
        if self._before is not None:
            self._before()
        write(path, content)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._taken = None
            self._writing = False
            if error is not None:
                self._error = error
                self._waiting.clear()
            self._changed.notify_all()
