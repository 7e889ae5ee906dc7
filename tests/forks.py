"""Child processes of a test, which have torch loaded already."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable


def forked(function: Callable[[], object]) -> int:
    """Run a function in a fork of this process; return the child's id. The child exits with 0 unless the function raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def exit_code(child: int, seconds: float = 300.0) -> int:
    """Wait for a child and return its exit code. A child that takes longer is killed."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            kill(child)
            raise TimeoutError(f"the child ran for {seconds} seconds")
        time.sleep(0.01)


def kill(*children: int) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
