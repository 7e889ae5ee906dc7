"""Save checkpoints while the run goes on: the caller copies the tensors, and a thread writes the copy to disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType

from metarun.records.checkpoint import Checkpoint, encode, snapshot, write

SNAPSHOTS = 3
"""The most copies in memory, including the one that the thread writes. With Adam's moments, a copy has three times the parameters."""
PATIENCE = 2.0
"""Seconds that an interrupted run (Ctrl-C) waits for its disk."""


class Saver:
    """Saves checkpoints like `checkpoint.save`, in the order of the calls, but the caller waits only for a copy of the tensors.

    before: a function that the thread calls before it writes each file. With `Tracker.sync`, the values logged before a call of `save` are
        on disk before that checkpoint. The function must stay valid until the `with` block ends.

    The Saver writes every checkpoint, even if a newer one for the same path waits. So the files on disk go through the same states as with
    `checkpoint.save`, only later. The end of the `with` block waits until all files are on disk.

    If the thread fails, the next `save` or `flush`, or the end of the block, raises its error once. The Saver also drops the checkpoints
    that wait: with `checkpoint.save`, the error would have come earlier, and the caller would not have saved these checkpoints.
    """

    def __init__(self, before: Callable[[], object] | None = None) -> None:
        self._before = before
        self._thread: threading.Thread | None = None  # the latest thread
        self._waiting: list[tuple[Path, Checkpoint, Callable[[], object] | None]] = []
        self._taken: Checkpoint | None = None  # the checkpoint that the thread took and has not encoded yet
        self._running = self._writing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()  # guards all fields above

    def save(self, path: str | Path, checkpoint: Checkpoint, then: Callable[[], object] | None = None) -> None:
        """Copy the checkpoint and return; waits only while `SNAPSHOTS` earlier checkpoints are not on disk.

        then: a function that the thread calls when this checkpoint is on disk.

        Raises TypeError, with the key, for an entry that is neither a plain value nor a tensor. If an earlier save failed, raises its
        error and does not save.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) + self._writing < SNAPSHOTS)
            self._raise()
        copied = snapshot(checkpoint)
        with self._changed:
            self._raise()  # an error during the copy: this checkpoint is dropped like those that waited
            if not self._running:
                # A daemon thread, so that a hanging disk cannot keep the process. It ends between saves, so that a fork finds no thread.
                thread = threading.Thread(target=self._work, name="saver", daemon=True)
                thread.start()  # it waits for this lock before it reads the list, so a failed start leaves nothing behind
                self._thread, self._running = thread, True
            self._waiting.append((Path(path), copied, then))
            del copied  # only the thread holds the copy now, and frees it after encoding

    def flush(self) -> None:
        """Wait until all files are on disk; raises the error of an earlier save."""
        self._rest()
        self._raise()

    def is_busy(self) -> bool:
        """Return whether a checkpoint is still on its way to the disk."""
        return self._running

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
        """Wait until all files are on disk and the thread has ended."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self._running, seconds)
        if done and self._thread is not None:
            self._thread.join()  # a short wait: if Ctrl-C interrupts a join, Python considers the thread ended

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _leave(self) -> None:
        """Wait at most `PATIENCE` seconds. The thread ends with the process, and an unfinished file never replaces an earlier one."""
        try:
            self._rest(PATIENCE)
        finally:  # also after a second Ctrl-C during the wait
            with self._changed:
                self._waiting.clear()
                # The C++ runtime aborts a process that ends while a thread is inside torch.save, or frees a tensor.
                self._changed.wait_for(lambda: self._taken is None)

    def _work(self) -> None:
        while (begun := self._begin()) is not None:
            error: BaseException | None = None
            try:
                self._write(*begun)
            except BaseException as caught:
                error = caught
            self._end(error)

    def _begin(self) -> tuple[Path, Callable[[], object] | None] | None:
        with self._changed:
            self._running = self._writing = bool(self._waiting)
            if not self._waiting:
                self._changed.notify_all()
                return None
            path, self._taken, then = self._waiting.pop(0)
            return path, then

    def _write(self, path: Path, then: Callable[[], object] | None) -> None:
        assert self._taken is not None
        content = encode(self._taken)
        with self._changed:
            self._taken = None
            self._changed.notify_all()
        if self._before is not None:
            self._before()
        write(path, content)
        if then is not None:
            then()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._taken = None
            self._writing = False
            if error is not None:
                self._error = error
                self._waiting.clear()
            self._changed.notify_all()


def remove_others(folder: Path, pattern: str, kept: Collection[str]) -> None:
    """Delete the files of the folder that match the pattern, except those named in `kept`. A file that cannot be deleted stays."""
    for file in folder.glob(pattern):
        if file.name not in kept:
            with contextlib.suppress(OSError):
                file.unlink()
