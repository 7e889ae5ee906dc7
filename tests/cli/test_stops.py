"""A signal ends a sweep: what jobs in other processes return, what the command hears, and what it says."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli.signals import raise_signalled
from metarun.cli.stops import (
    IN_PROCESS,
    IN_QUEUE,
    MARK,
    SweepWatch,
    Unfinished,
    check_going_on,
    hear_signals,
    how_to_go_on,
    leave,
    mark,
    stop_of,
)
from metarun.compute.stops import STOPS
from metarun.engine import training as engine
from metarun.errors import Stopped

if TYPE_CHECKING:
    from command_line import Calls, CommandLine

pytest_plugins = ("command_line",)

HOLD = """
import signal, sys, time
from metarun.files.lock import FolderLock
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
with FolderLock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    before = {number: signal.getsignal(number) for number in STOPS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_the_first_signal_marks_the_sweep(tmp_path: Path) -> None:
    assert stop_of(tmp_path) is None
    mark(tmp_path, signal.SIGUSR1)
    mark(tmp_path, signal.SIGTERM)
    assert stop_of(tmp_path) == signal.SIGUSR1
    with pytest.raises(Stopped) as caught:
        check_going_on(tmp_path)
    assert caught.value.number == signal.SIGUSR1


def test_a_job_of_a_queue_begins_though_another_job_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(tmp_path, signal.SIGUSR2)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    check_going_on(tmp_path)


def test_a_sweeper_that_asks_for_the_error_of_an_unfinished_job_stops() -> None:
    with pytest.raises(Stopped) as caught:
        float(pickle.loads(pickle.dumps(Unfinished(signal.SIGTERM))))
    assert caught.value.number == signal.SIGTERM


def test_the_command_passes_a_signal_on_to_its_jobs_and_gets_its_signals_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in STOPS}
    mark(tmp_path, signal.SIGTERM)  # of an earlier start
    watch = SweepWatch(tmp_path, "JoblibLauncher")
    watch.begin()
    assert stop_of(tmp_path) is None
    try:
        with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "0_a")], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            os.kill(os.getpid(), signal.SIGINT)
            assert process.wait(30) == 7
    finally:
        watch.end()
    assert stop_of(tmp_path) == signal.SIGINT
    assert "metarun: SIGINT: the jobs at hand save, and no further job begins" in capfd.readouterr().err
    assert {number: signal.getsignal(number) for number in STOPS} == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(STOPS)


def test_a_second_ctrl_c_ends_the_command_at_once(tmp_path: Path) -> None:
    def run() -> None:
        watch = SweepWatch(tmp_path, "JoblibLauncher")
        watch.begin()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            end = time.monotonic() + 20
            while stop_of(tmp_path) is None and time.monotonic() < end:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            while time.monotonic() < end:  # joblib waits for its jobs in short sleeps, too
                time.sleep(0.01)
        finally:
            watch.end()

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("launcher", [IN_PROCESS, IN_QUEUE])
def test_signals_stay_as_they_are_where_no_job_runs_beside_the_command(tmp_path: Path, launcher: str) -> None:
    before = [signal.getsignal(number) for number in STOPS]
    mark(tmp_path, signal.SIGTERM)
    watch = SweepWatch(tmp_path, launcher)
    watch.begin()
    assert [signal.getsignal(number) for number in STOPS] == before
    assert not (tmp_path / MARK).exists()
    watch.end()


def test_a_job_leaves_the_signal_to_its_launcher_first(tmp_path: Path) -> None:
    """submitit's handler queues the job again and ends the process, so nothing marks the sweep."""

    def requeue(number: int, frame: object) -> None:
        raise SystemExit(144)

    signal.signal(signal.SIGUSR2, requeue)
    with pytest.raises(SystemExit):
        leave(Stopped(signal.SIGUSR2), tmp_path)
    assert stop_of(tmp_path) is None


def test_a_job_that_its_launcher_does_not_queue_again_is_unfinished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(number: int, frame: object) -> None:
        raise RuntimeError("timed-out too many times")

    signal.signal(signal.SIGUSR2, refuse)
    assert leave(Stopped(signal.SIGUSR2), tmp_path) == Unfinished(signal.SIGUSR2)
    assert stop_of(tmp_path) == signal.SIGUSR2
    assert "timed-out too many times" in capsys.readouterr().err


def test_a_job_hears_what_the_command_sends_and_no_ctrl_c(tmp_path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    signal.signal(signal.SIGTERM, lambda *_: None)  # as submitit does
    hear_signals()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(STOPS) == {signal.SIGINT}
    assert signal.getsignal(signal.SIGTERM) is raise_signalled


def test_the_line_on_how_to_go_on_has_the_same_command() -> None:
    words = ["-m", "seed=0,1", "backbone.widths=[8]", "resume=auto", "hydra.sweep.dir=old"]
    assert how_to_go_on("train", words, Path("a b"), signal.SIGINT) == (
        "metarun: SIGINT ended the sweep; finish it with: metarun train -m seed=0,1 'backbone.widths=[8]' resume=auto 'hydra.sweep.dir=a b'"
    )
    assert "its jobs stay in the queue" in how_to_go_on("train", words, Path("a"), signal.SIGHUP, IN_QUEUE)
    assert how_to_go_on("eval", words, Path("a"), signal.SIGTERM) == "metarun: SIGTERM ended the sweep; its results so far are in a"


def test_a_stopped_job_ends_the_sweep_with_its_code_and_the_same_command_finishes_it(command_line: CommandLine, calls: Calls) -> None:
    def stop(config: dict[str, object]) -> float:
        raise Stopped(signal.SIGUSR1)

    calls.answer = stop  # type: ignore[assignment]
    answer = command_line("train", "-m", "seed=0,1,2", "hydra.sweep.dir=sweep")
    assert (answer.code, len(calls.train)) == (138, 1)
    folder = Path("sweep").absolute()
    said = f"metarun: SIGUSR1 ended the sweep; finish it with: metarun train -m seed=0,1,2 resume=auto hydra.sweep.dir={folder}"
    assert answer.err.endswith(f"{said}\n")


def test_ctrl_c_in_the_first_of_three_jobs_ends_the_sweep_and_resume_auto_finishes_all(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With true trainings. The finished sweep has the results of one that was never stopped."""
    small = ["task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "steps=4", "tasks_per_step=2", "eval_episodes=2", "logger=jsonl"]
    words = ["train", "-m", *small, "device.threads=1", "seed=0,1,2"]
    step = engine.Loop.step

    def interrupted(loop: engine.Loop) -> None:
        if loop.position.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        step(loop)

    monkeypatch.setattr(engine.Loop, "step", interrupted)
    stopped = command_line(*words, "hydra.sweep.dir=sweep")
    monkeypatch.setattr(engine.Loop, "step", step)
    assert stopped.code == 130
    assert "SIGINT ended the sweep; finish it with:" in stopped.err
    assert [folder.name for folder in Path("sweep").glob("*_seed-*")] == ["0_seed-0"]
    assert command_line(*words, "hydra.sweep.dir=sweep", "resume=auto").code == 0
    assert command_line(*words, "hydra.sweep.dir=whole").code == 0
    done = command_line(*words, "hydra.sweep.dir=sweep", "resume=auto")
    assert done.out.count("metarun: nothing to do in") == 3
    for seed in range(3):
        job = f"{seed}_seed-{seed}/report.json"
        assert (Path("sweep") / job).read_text() == (Path("whole") / job).read_text()
