"""The time that a run still takes."""

from __future__ import annotations

import pytest

from metarun.records.pace import Pace, clock_text


def test_the_time_left_counts_from_the_speed_of_measured_steps() -> None:
    """10 steps in 20 s leave 90 steps of 2 s."""
    pace = Pace(100)
    pace.step(10, 20.0)
    assert pace.left(10) == pytest.approx(180.0)


def test_nothing_is_estimated_before_enough_is_measured() -> None:
    pace = Pace(100_000)
    pace.step(1, 0.01)
    assert pace.left(1) is None
    for step in range(2, 11):
        pace.step(step, 0.01)
    assert pace.left(10) == pytest.approx(999.9)


def test_a_skipped_step_counts_neither_as_a_step_nor_as_time() -> None:
    pace = Pace(100, start=50)
    pace.skip(51)
    pace.step(52, 1.0)
    assert pace.left(52) == pytest.approx(48.0)


def test_validations_count_with_their_mean_time() -> None:
    """8 steps of 1 s, and the validations at the steps 4, 6, 8 and 10, of 5 s each."""
    pace = Pace(10, validate_every=2)
    pace.step(2, 2.0)
    pace.validated(4.0)
    pace.validated(6.0)
    assert pace.left(2) == pytest.approx(8.0 + 4 * 5.0)


def test_before_the_first_validation_its_size_gives_its_time() -> None:
    """A validation of the tasks of 10 steps, without a backward pass: half of 10 steps of 1 s; one at step 50 and one at step 100."""
    pace = Pace(100, validate_every=50, validation=10.0)
    pace.step(10, 10.0)
    assert pace.left(10) == pytest.approx(90.0 + 2 * 5.0)


def test_recent_steps_decide_where_the_speed_changes() -> None:
    """100 steps of 0.1 s, then 300 s of steps of 1 s: ten half-lives leave the old steps a thousandth of their weight."""
    pace = Pace(1000)
    pace.step(100, 10.0)
    for step in range(101, 401):
        pace.step(step, 1.0)
    assert pace.left(400) == pytest.approx(600.0, rel=0.01)


@pytest.mark.parametrize(
    ("steps", "every", "step", "left"),
    [(100, 50, 0, 2), (100, 50, 50, 1), (100, 50, 100, 0), (100, 0, 10, 1), (110, 50, 60, 2), (100, None, 0, 0), (10, 50, 3, 1)],
)
def test_the_last_step_always_has_a_validation(steps: int, every: int | None, step: int, left: int) -> None:
    assert Pace(steps, validate_every=every).validations_after(step) == left


def test_durations_have_hours_and_days_where_they_are_long() -> None:
    assert [clock_text(seconds) for seconds in (0, 59.6, 3723, 360_000)] == ["00:00", "01:00", "1:02:03", "4 d 04:00 h"]
