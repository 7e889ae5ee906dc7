"""How a training ends that a signal meets after its last step, or that a second Ctrl-C breaks off."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from metarun.commands.stopping import announce, stopping
from metarun.engine.interrupt import Interrupt
from metarun.errors import Stopped


def stop_within(folder: Path, *numbers: int) -> int:
    def run() -> None:
        with stopping(Interrupt(), folder, {}):
            for number in numbers:
                os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as caught:
        run()
    return caught.value.number


def test_a_signal_after_the_last_step_ends_the_command_though_the_run_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Else `train && eval` would go on, and so would a sweep."""
    assert stop_within(tmp_path, signal.SIGUSR1) == signal.SIGUSR1
    assert capsys.readouterr().err == "metarun: SIGUSR1 came after the last step; the run is complete.\n"


def test_a_training_that_stopped_by_itself_keeps_its_signal(tmp_path: Path):
    with pytest.raises(Stopped) as caught, stopping(Interrupt(), tmp_path, {}):
        raise Stopped(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM


def test_a_second_ctrl_c_names_the_checkpoint_that_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "checkpoints").mkdir()
    assert stop_within(tmp_path, signal.SIGTERM, signal.SIGINT) == signal.SIGINT
    assert capsys.readouterr().err == "metarun: broken off; the run has no checkpoint yet.\n"
    (tmp_path / "checkpoints/last.pt").touch()
    assert stop_within(tmp_path, signal.SIGINT, signal.SIGINT) == signal.SIGINT
    said = f"metarun: broken off; the last checkpoint stays; go on with: metarun train resume={tmp_path}\n"
    assert capsys.readouterr().err == said


def test_a_training_without_a_signal_returns(tmp_path: Path):
    with stopping(Interrupt(), tmp_path, {}):
        pass


def test_the_first_signal_is_announced_at_once(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    announce(signal.SIGUSR2)
    assert capfd.readouterr().err == "metarun: SIGUSR2: the run stops as soon as it can and saves; another Ctrl-C breaks it off.\n"
    monkeypatch.setattr("sys.stderr", None)
    announce(signal.SIGUSR2)
