"""What a training says when a signal stops it, and how it ends then."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarun.engine.interrupt import Interrupt, say_at_once
from metarun.errors import Stopped, signal_name
from metarun.files.commands import command
from metarun.files.paths import word
from metarun.files.run_folder import CHECKPOINTS


def announce(number: int) -> None:
    """Say at once that a signal was heard, since a step or a validation may take long. Runs inside of a signal handler."""
    say_at_once(f"metarun: {signal_name(number)}: the run stops as soon as it can and saves; another Ctrl-C breaks it off.")


def stopped_at(step: int, steps: int, folder: Path, config: Mapping[str, Any], *, validates: bool = False) -> str:
    """Return the line about a training that has stopped and saved. folder, config: the run's. validates: in a validation."""
    where = f"in the validation after step {step:,}" if validates else f"at step {step:,} of {steps:,}"
    return f"metarun: stopped {where} and saved; go on with: {resuming(folder, config)}"


@contextlib.contextmanager
def stopping(interrupt: Interrupt, folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Run a training in the `with` block. Raises Stopped after it where a signal came, also where the training was complete by then.

    A second Ctrl-C breaks the training off. folder, config: the run's.
    """
    try:
        with interrupt:
            yield
    except Stopped:
        raise
    except KeyboardInterrupt as broken:
        print(f"metarun: broken off; {_remains(folder, config)}", file=sys.stderr, flush=True)
        raise Stopped(signal.SIGINT) from broken
    if interrupt.number is not None:
        print(f"metarun: {signal_name(interrupt.number)} came after the last step; the run is complete.", file=sys.stderr, flush=True)
        raise Stopped(interrupt.number)


def resuming(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the command that goes on with a run."""
    return command("train", word("resume", folder), config=config)


def _remains(folder: Path, config: Mapping[str, Any]) -> str:
    """Return what a broken run leaves, for a person."""
    if any((folder / CHECKPOINTS).glob("*.pt")):
        return f"the last checkpoint stays; go on with: {resuming(folder, config)}"
    return "the run has no checkpoint yet."
