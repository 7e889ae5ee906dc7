"""The signals that end a command while no training takes its steps."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarun.cli.signals import Signalled, handle_signals
from metarun.compute.stops import STOPS
from metarun.records import checkpoint


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [number for number in STOPS if number != signal.SIGINT], ids=lambda number: number.name)
def test_each_signal_ends_the_command_as_ctrl_c_does(number: signal.Signals) -> None:
    handle_signals()
    with pytest.raises(Signalled) as caught:
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN], ids=["default", "ignored"])
def test_ctrl_c_stays_ctrl_c_also_in_the_background_of_a_script(before: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, before)
    handle_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_that_are_ignored_or_have_a_handler_are_left_alone() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    handle_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert heard == [signal.SIGUSR2]


def test_a_training_that_slurm_warns_saves_and_exits_with_138_and_nohup_holds(tmp_path: Path) -> None:
    """A true process, under a shell that ignores SIGHUP, as `nohup` does."""
    words = ["train", "task=sinusoid", "backbone=mlp", "steps=100000", "eval_every=0", "save_every=0", "log_every=1", "logger=jsonl"]
    device = ["device=cpu", "device.threads=1", "device.compile=false", "device.kernels=torch"]
    command = shlex.join([sys.executable, "-m", "metarun", *words, *device, "algo.inner_steps=1", "hydra.run.dir=run"])
    with subprocess.Popen(["sh", "-c", f"trap '' HUP; exec {command}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "run/metrics.jsonl"
        while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGUSR1
    assert "metarun: SIGUSR1: the run stops as soon as it can and saves" in said
    assert re.search(r"stopped at step [\d,]+ of 100,000 and saved; go on with: .*train resume=\S*run$", said, re.MULTILINE)
    assert "Traceback" not in said
    assert "stopped at step" in said.splitlines()[-1], "the last values stand above"
    saved = re.search(r"stopped at step ([\d,]+)", said)
    assert saved is not None
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pt").step == int(saved[1].replace(",", ""))
