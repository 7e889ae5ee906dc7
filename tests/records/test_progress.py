"""What is shown while a run trains."""

from __future__ import annotations

import io

import pytest

from metarun.records.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_progress_is_plain_lines_with_the_latest_values() -> None:
    stream = io.StringIO()
    with Progress(100, stream=stream, every=0.0) as progress:
        progress.update(10, loss=0.123456)
        progress.update(20, **{"val accuracy": 0.5, "tasks/s": 130.2})
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 10/100  loss 0.1235  ")
    assert second.startswith("step 20/100  loss 0.1235  val accuracy 0.5  130.2 tasks/s  ")
    assert second.endswith(" left")


def test_plain_lines_come_no_faster_than_asked_but_the_last_always_comes() -> None:
    stream = io.StringIO()
    progress = Progress(1000, stream=stream, every=3600.0)
    for step in range(1, 1001):
        progress.update(step, loss=1.0)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/1000", "1000/1000"]


def test_steps_without_new_values_print_no_line() -> None:
    stream = io.StringIO()
    Progress(10, stream=stream, every=0.0).update(1)
    assert stream.getvalue() == ""


def test_the_time_left_counts_from_where_a_resumed_run_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 steps in 20 s leave 90 steps of 2 s."""
    now = [0.0]
    monkeypatch.setattr("metarun.records.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(1000, start=900, stream=stream)
    now[0] = 20.0
    progress.update(910, loss=1.0)
    assert stream.getvalue().endswith("03:00 left\n")


def test_on_a_terminal_progress_is_one_bar() -> None:
    stream = Terminal()
    with Progress(4, start=1, stream=stream) as progress:
        progress.update(2, loss=0.5)
        progress.say("saved")
        progress.update(4, **{"val accuracy": 0.75})
    shown = stream.getvalue()
    assert "saved\n" in shown
    assert "4/4" in shown
    assert "loss 0.5  val accuracy 0.75" in shown
