"""The speed of training, without the time of evaluations."""

from __future__ import annotations

import pytest

from metarun.engine import clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that the clock reads, in a list, so that a test can set it."""
    seconds = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: seconds[0])
    return seconds


def test_speed_and_waiting_are_those_since_the_last_reading(now: list[float]) -> None:
    """10 steps of 4 tasks in 8 s, 2 s of them waiting; then 5 steps in 10 s, 1 s of it waiting."""
    measured = clock.Clock(tasks_per_step=4)
    now[0] = 108.0
    assert measured.read(10, waited=2.0) == (5.0, 0.25)
    now[0] = 118.0
    assert measured.read(5, waited=3.0) == (2.0, 0.1)


def test_a_pause_leaves_out_the_time_before_it(now: list[float]) -> None:
    measured = clock.Clock(tasks_per_step=1)
    now[0] = 150.0
    measured.pause()
    now[0] = 152.0
    assert measured.read(4, waited=0.0) == (2.0, 0.0)
