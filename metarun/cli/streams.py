"""Standard output and error that never end a command: readers that go away, closed streams, and encodings with few letters."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

_SUBSTITUTES = str.maketrans(
    {"\u00b1": "+-", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u2019": "'", "\u00d7": "x", "\u03b1": "alpha"}
)
_ERRORS = "metarun"
READER_LEFT = 141
"""The exit code where the reader of a pipe left before the end, as of a program that SIGPIPE ends."""


class SteadyFile(io.FileIO):
    """A stream that drops its text after an error. lost: the first error, such as that the reader of a pipe left."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, and drop the data where that fails: neither a training nor a result in a file depends on it."""
        if self.lost is None:
            try:
                while (written := super().write(data)) is None:  # a full pipe that does not wait by itself
                    select.select([], [self], [])
                return written
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def make_steady() -> None:
    """Replace sys.stdout and sys.stderr, unless something else has replaced them already, as a test does."""
    _open_closed()
    codecs.register_error(_ERRORS, _with_substitutes)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and (stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper)):
            continue
        steady = _steady(stream, descriptor)
        setattr(sys, name, steady)
        setattr(sys, f"__{name}__", steady)


def exit_code(code: int, *, printed_only: bool) -> int:
    """Return the exit code of a command, from its own one: a command whose text is its only result fails where the text was lost.

    printed_only: whether the command left no files, such as `metarun list`.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    lost = _lost(sys.stdout)
    if lost is None:
        return code
    if lost.errno == errno.EPIPE:
        return READER_LEFT if printed_only and code == 0 else code
    print(f"metarun: cannot write to standard output: {lost.strerror}.", file=sys.stderr)
    return code or 1


def _lost(stream: Any) -> OSError | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, SteadyFile) else None


def _open_closed() -> None:
    """Open /dev/null in the place of closed streams (`>&-`): else the next file that the process opens would get their text."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)


def _steady(stream: io.TextIOWrapper | None, descriptor: int) -> io.TextIOWrapper:
    encoding, line_buffering = "utf-8", True
    if stream is not None:
        # PYTHONUNBUFFERED=1 means write_through, which alone would leave the text in the buffer below.
        encoding, line_buffering = stream.encoding, stream.line_buffering or stream.write_through
        with contextlib.suppress(OSError):
            stream.flush()
    buffer = io.BufferedWriter(SteadyFile(descriptor, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding, _ERRORS, line_buffering=line_buffering)


def _with_substitutes(error: UnicodeError) -> tuple[str, int]:
    """Write a letter that the encoding does not have as one or more letters of ASCII, or as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_SUBSTITUTES)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
