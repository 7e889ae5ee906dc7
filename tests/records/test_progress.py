"""What is shown while a run trains."""

from __future__ import annotations

import io

import pytest

from metarun.records.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("metarun.records.progress.time.monotonic", lambda: self.now)


def test_without_a_terminal_progress_is_plain_lines_with_the_latest_values() -> None:
    stream = io.StringIO()
    with Progress(100, stream=stream, every=0.0) as progress:
        progress.update(10, loss=0.123456)
        progress.update(15, **{"val accuracy": 0.5, "tasks/s": 130.2})
    assert stream.getvalue() == "step 10/100  loss 0.1235\nstep 15/100  loss 0.1235  val accuracy 50.00 %  130.2 tasks/s\n"


def test_plain_lines_come_no_faster_than_asked_but_the_last_always_comes() -> None:
    stream = io.StringIO()
    with Progress(1000, stream=stream, every=3600.0) as progress:
        for step in range(1, 1001):
            progress.update(step, loss=1.0)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/1,000", "1,000/1,000"]


def test_steps_without_new_values_print_no_line() -> None:
    stream = io.StringIO()
    with Progress(10, stream=stream, every=0.0) as progress:
        progress.update(1)
    assert stream.getvalue() == ""


def test_the_time_left_leaves_out_the_first_step_and_what_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run: 60 s of recording and compiling in its first step, then 10 steps in 20 s: 89 steps of 2 s are left."""
    clock = Clock(monkeypatch)
    stream = io.StringIO()
    progress = Progress(1000, start=900, stream=stream)
    clock.now = 60.0
    progress.update(901, loss=1.0)
    assert "left" not in stream.getvalue()
    clock.now = 80.0
    progress.update(911, loss=1.0)
    assert stream.getvalue().endswith("02:58 left\n")
    with progress.display.doing("compiling the step"):
        clock.now = 380.0
    clock.now = 400.0
    progress.update(921, loss=1.0)
    assert stream.getvalue().endswith("02:38 left\n")


def test_the_time_of_a_validation_is_none_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 s a step and 50 s a validation; 80 steps and 8 validations are left after step 20."""
    clock = Clock(monkeypatch)
    stream = io.StringIO()
    progress = Progress(100, stream=stream, validate_every=10)
    progress.update(1)
    clock.now = 9.0
    progress.update(10)
    with progress.validating():
        assert "validating" in progress.text(None)
        clock.now = 59.0
    clock.now = 69.0
    progress.update(20, loss=1.0)
    assert progress.pace.left(20) == pytest.approx(80 + 8 * 50)


def test_on_a_terminal_progress_is_one_line_that_does_not_fill_the_last_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(2000, start=1, stream=stream, keep=True) as progress:
        progress.update(2, loss=0.5)
        progress.say("saved")
        progress.update(1500, **{"val accuracy": 0.75})
        assert max(map(len, stream.getvalue().replace("\n", "\r").split("\r"))) <= 79
        assert progress.text(79).startswith("step 1,500/2,000  loss 0.5000  val accuracy 75.00 %")
    assert "saved\n" in stream.getvalue()
    assert stream.getvalue().endswith("step 1,500/2,000  loss 0.5000  val accuracy 75.00 %\n")


@pytest.mark.parametrize("variable", ["dumb"])
def test_a_terminal_that_cannot_repaint_gets_lines(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("TERM", variable)
    stream = Terminal()
    with Progress(2, stream=stream, every=0.0) as progress:
        progress.update(1, loss=0.5)
        progress.update(2, loss=0.25)
    assert stream.getvalue() == "step 1/2  loss 0.5000\nstep 2/2  loss 0.2500\n"
