"""A logger that fails costs a warning, and never the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metarun.errors import UserError
from metarun.records.loggers.guarded import LONGEST_PAUSE, PAUSE, Guarded
from metarun.records.loggers.logger import RunStart


class Flaky:
    """Fails while `broken`, and notes what it takes."""

    draws_figures = True

    def __init__(self) -> None:
        self.broken, self.tries = False, 0
        self.taken: list[Any] = []

    def _take(self, what: Any) -> None:
        self.tries += 1
        if self.broken:
            raise OSError("the server\nis gone")
        self.taken.append(what)

    def start(self, run: RunStart) -> None:
        self._take("start")

    def log(self, step: int, values: Any) -> None:
        self._take(step)

    def figure(self, step: int, tag: str, figure: Any) -> None:
        self._take(tag)

    def result(self, step: int, metrics: Any) -> None:
        self._take(metrics)

    def sync(self) -> None:
        self._take("sync")

    def close(self) -> None:
        self._take("close")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guarded(flaky: Flaky, clock: Clock) -> Guarded:
    return Guarded("flaky", flaky, clock)


def test_values_pass_at_once_and_in_order(guarded: Guarded, flaky: Flaky) -> None:
    guarded.start(RunStart(Path("run")))
    guarded.log(1, {})
    guarded.figure(1, "picture", None)  # type: ignore[arg-type]
    guarded.sync()
    guarded.result(1, {"best": 1.0})
    guarded.close()
    assert flaky.taken == ["start", 1, "picture", "sync", {"best": 1.0}, "close"]


def test_a_failure_is_told_once_and_the_values_come_later(
    guarded: Guarded, flaky: Flaky, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.log(1, {})
    flaky.broken = True
    for step in (2, 3):
        guarded.log(step, {})
    clock.now = PAUSE
    guarded.log(4, {})  # fails again
    flaky.broken = False
    clock.now = 10 * PAUSE
    guarded.log(5, {})
    assert flaky.taken == [1, 2, 3, 4, 5]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "the logger flaky failed: OSError: the server. The training goes on" in warning


def test_a_training_does_not_wait_for_a_logger_that_failed_a_moment_ago(guarded: Guarded, flaky: Flaky, clock: Clock) -> None:
    flaky.broken = True
    guarded.log(1, {})
    for step in range(2, 50):
        guarded.log(step, {})
        guarded.sync()
        guarded.figure(step, "picture", None)  # type: ignore[arg-type]
    assert flaky.tries == 1


def test_the_pause_doubles_up_to_a_limit_and_starts_anew_after_a_success(guarded: Guarded, flaky: Flaky, clock: Clock) -> None:
    flaky.broken = True
    tried = []
    for second in range(5000):
        clock.now, before = float(second), flaky.tries
        guarded.log(second, {})
        tried += [second] if flaky.tries > before else []
    pauses = [later - earlier for earlier, later in zip(tried, tried[1:], strict=False)]
    assert pauses[:6] == [PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE, 16 * PAUSE, LONGEST_PAUSE]
    assert set(pauses[5:]) == {LONGEST_PAUSE}
    flaky.broken = False
    clock.now += LONGEST_PAUSE
    guarded.log(6000, {})
    assert len(flaky.taken) == 5001
    flaky.broken = True
    guarded.log(6001, {})
    before = flaky.tries
    clock.now += PAUSE
    guarded.log(6002, {})
    assert flaky.tries == before + 1


def test_at_the_end_the_logger_gets_a_last_chance_and_the_loss_is_told(
    guarded: Guarded, flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    flaky.broken = True
    guarded.log(1, {})
    guarded.log(2, {})
    guarded.result(2, {"best": 1.0})
    guarded.close()
    assert [record.getMessage() for record in caplog.records][1:] == [
        "the logger flaky misses the last 2 lines of this run; metrics.jsonl has them."
    ]
    flaky.broken = False
    other = Guarded("flaky", flaky)
    other.log(1, {})
    other.result(1, {"best": 2.0})
    assert flaky.taken == [1, {"best": 2.0}]


def test_a_logger_that_cannot_start_is_a_sentence_and_its_own_sentence_stays() -> None:
    flaky = Flaky()
    flaky.broken = True
    with pytest.raises(UserError, match="the logger flaky cannot start: OSError: the server; mend this, or choose another with logger="):
        Guarded("flaky", flaky).start(RunStart(Path("run")))

    class Missing(Flaky):
        def start(self, run: RunStart) -> None:
            raise UserError("install it")

    with pytest.raises(UserError, match=r"^install it$"):
        Guarded("missing", Missing()).start(RunStart(Path("run")))


def test_ctrl_c_passes_through(guarded: Guarded, flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(step: int, values: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flaky, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guarded.log(1, {})
