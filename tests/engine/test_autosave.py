"""When the engine saves: at steps, and by a clock that changes nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small import Lines, Run, dense_network, run_engine

from metarun.algorithms.maml import Maml
from metarun.engine import training
from metarun.engine.autosave import Autosave
from metarun.objectives import REGRESSION


class Time:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_clock_saves_after_its_minutes_and_starts_anew_at_each_save():
    time = Time()
    autosave = Autosave(0, 5, now=time)
    due = []
    for time.now in (0, 299, 300, 301, 599, 600):
        due.append(autosave.due(1))
    assert due == [False, False, True, False, False, True]


def test_a_save_of_the_schedule_starts_the_clock_anew():
    time = Time()
    autosave = Autosave(10, 5, now=time)
    time.now = 200
    assert autosave.due(10)
    time.now = 400
    assert not autosave.due(11)


@pytest.mark.parametrize("minutes", [None, 0])
def test_without_minutes_only_steps_count(minutes: float | None):
    time = Time()
    autosave = Autosave(10, minutes, now=time)
    time.now = 1e9
    assert [step for step in range(1, 31) if autosave.due(step)] == [10, 20, 30]


def test_the_clock_waits_while_the_disk_is_busy_and_the_schedule_does_not():
    time, busy = Time(), True
    autosave = Autosave(10, 5, lambda: busy, time)
    time.now = 1000
    assert not autosave.due(9)
    assert autosave.due(10)
    busy = False
    assert not autosave.due(11), "since the schedule has just saved"
    time.now = 1300
    assert autosave.due(11)


def trained(folder: Path, **settings: Any) -> Run:
    return run_engine(folder, Maml(dense_network(), REGRESSION, inner_lr=0.01), Lines(), steps=6, eval_every=3, **settings)


def test_a_training_is_the_same_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quiet = trained(tmp_path / "quiet", save_every=4, save_minutes=None)

    class Hasty(Time):
        def __call__(self) -> float:
            self.now += 1000
            return self.now

    monkeypatch.setattr(training, "Autosave", partial(Autosave, now=Hasty()))
    hasty = trained(tmp_path / "hasty", save_every=4)
    timed = ("time", "speed/tasks_per_second", "speed/share_of_time_waiting_for_episodes")
    assert [{**line, **dict.fromkeys(timed)} for line in hasty.lines] == [{**line, **dict.fromkeys(timed)} for line in quiet.lines]
    assert all(bool((hasty.position.params[name] == value).all()) for name, value in quiet.position.params.items())
    assert [step for name, step in quiet.saved if name == "last.pt"] == [0, 4, 6]
    assert [step for name, step in hasty.saved if name == "last.pt"] == [0, 1, 2, 3, 4, 5, 6]
    assert [each for each in hasty.saved if each[0] != "last.pt"] == [each for each in quiet.saved if each[0] != "last.pt"]
