"""Messages on a terminal: plain sentences. The log file of a run has them with the time, the module and the level."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator

from metarun.records.display import display

OWN = "metarun"
INNER = ("metarun.compute", "metarun.tasks.pictures")
"""Modules whose notes are only for the log file: about metarun's own machinery, or about what the line at the bottom tells."""
PYTHON = "py.warnings"
"""The logger that gets the warnings of Python's module `warnings`."""
_WARNING = re.compile(r"^.*?:\d+: (?P<kind>\w+): (?P<text>.*)$")
_UNTOLD = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "ResourceWarning")
"""Warnings for the authors of libraries. They stay in the log file."""
UNTOLD = {"untold": True}
"""Give it as `extra` to a message for the log file alone."""
_ORIGIN = re.compile(r"\s*\(Triggered internally at .*?\)")


class Console(logging.Handler):
    """A handler that prints a record as a sentence, above the line at the bottom of the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record, if it is for a person."""
        text = sentence(record)
        if text is not None:
            with contextlib.suppress(Exception):  # such as a closed stream
                display().say(text)


def sentence(record: logging.LogRecord) -> str | None:
    """Return a record as a sentence for a person; None for one that only the log file has.

    Notes are metarun's own, but not those of its machinery. A warning of Python's loses the name of its file.
    """
    text = record.getMessage()
    if getattr(record, "untold", False):
        return None
    if record.levelno < logging.WARNING:
        return f"{OWN}: {text}" if _is_below(record.name, (OWN,)) and not _is_below(record.name, INNER) else None
    if record.name == PYTHON:
        found = _WARNING.match(text.split("\n")[0])
        if found is not None and found["kind"] in _UNTOLD:
            return None
        text = found["text"] if found is not None else text
    if not _is_below(record.name, (OWN,)):
        text = _ORIGIN.sub("", text).split("\n")[0]
    return f"{OWN}: {'error' if record.levelno >= logging.ERROR else 'warning'}: {text}"


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Send the warnings of Python and of torch to the log in the `with` block, where the log file keeps them and `Console` prints them."""
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)


def adopt_torch() -> None:
    """Send the messages of torch's loggers to the root logger, instead of to stderr with a prefix; `TORCH_LOGS` leaves them as they are.

    Call it after the import of torch, which gives its loggers their handlers.
    """
    if os.environ.get("TORCH_LOGS"):
        return
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and _is_below(name, ("torch",)):
            for handler in [each for each in logger.handlers if type(each) is logging.StreamHandler]:
                logger.removeHandler(handler)
                logger.propagate = True


def _is_below(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)
