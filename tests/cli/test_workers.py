"""The workers of a sweep end with the process that runs the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metarun.cli.workers import COMMAND, ending_with_command, is_worker, note_command

PARENT = """
import os, signal, subprocess, sys
from metarun.cli.workers import note_command
note_command()
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
os.kill(os.getpid(), signal.SIGSTOP)
"""
WORKER = """
import os, signal, sys, time
from metarun.cli import workers
workers._EVERY = 0.02
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
with workers.ending_with_command():
    open(sys.argv[1] + "/begun", "w").close()
    os.kill(os.getppid(), signal.SIGKILL)
    while not stopped:
        time.sleep(0.02)
    open(sys.argv[1] + "/saved", "w").close()
time.sleep(60)
"""


def test_a_worker_saves_and_ends_when_the_command_was_killed(tmp_path: Path) -> None:
    """The pipe is closed when the last process that inherited it has ended."""
    done = subprocess.run([sys.executable, "-c", PARENT, WORKER, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""
    assert (tmp_path / "saved").exists()


def test_the_command_itself_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMMAND, raising=False)
    assert not is_worker()
    note_command()
    assert os.environ[COMMAND] == str(os.getpid())
    assert not is_worker()
    with ending_with_command():
        pass
