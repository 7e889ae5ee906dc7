"""Stopping a run: the step is finished, the state saved, and what was there before is put back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small import Lines, dense_network, run_engine

from metarun.algorithms.maml import Maml
from metarun.compute.stops import STOPS
from metarun.engine.interrupt import BrokenOff, Interrupt
from metarun.objectives import REGRESSION
from metarun.processes.ranks import OneProcess
from metarun.types import State


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_signal_is_a_request_to_stop(number: signal.Signals, handled: Handled):
    def own(number: int, frame: object) -> None:
        raise AssertionError

    handled(number, own)  # not what the tests were started with, which under `nohup` ignores SIGHUP
    with Interrupt() as interrupt:
        assert not interrupt.stopped
        os.kill(os.getpid(), number)
        assert interrupt.stopped
        assert interrupt.number == number
    assert signal.getsignal(number) is own


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_the_process_ignores_stays_ignored(number: signal.Signals, handled: Handled):
    """As SIGHUP under `nohup`."""
    handled(number, signal.SIG_IGN)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        assert not interrupt.stopped
    assert signal.getsignal(number) == signal.SIG_IGN


def test_ctrl_c_counts_in_the_background_of_a_script_too(handled: Handled):
    """There the shell lets the program ignore SIGINT, and nobody asked for that."""
    handled(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.stopped


def test_the_first_signal_names_the_stop_and_is_told_once():
    told: list[int] = []
    with Interrupt(told.append) as interrupt:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
    assert (interrupt.number, told) == (signal.SIGUSR1, [signal.SIGUSR1])


Handled = Callable[[int, Any], None]


@pytest.fixture
def handled() -> Iterator[Handled]:
    """Set handlers of signals for one test."""
    before: dict[int, object] = {}

    def handle(number: int, handler: Any) -> None:
        before[number] = signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


def send_during_a_run(*numbers: signal.Signals) -> None:
    with Interrupt() as interrupt:
        for number in numbers:
            os.kill(os.getpid(), number)
            assert interrupt.stopped


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_stops_at_once(first: signal.Signals):
    """Also where the handler was another one before: a shell lets what it starts in the background ignore SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send_during_a_run(first, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def break_off(interrupt: Interrupt, *, allowed: bool = True) -> list[str]:
    done = []
    with interrupt.breaking(allowed):
        done.append("begun")
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("ended")
    return done


def test_a_signal_breaks_off_a_block_that_may_be_broken_off():
    told: list[int] = []
    with Interrupt(told.append) as interrupt:
        with pytest.raises(BrokenOff):
            break_off(interrupt)
        assert (interrupt.number, told) == (signal.SIGTERM, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)  # outside of the block it is a request, as before


def test_a_block_does_not_begin_after_a_signal():
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(BrokenOff), interrupt.breaking():
            raise AssertionError("the block began")


def test_a_block_that_may_not_be_broken_off_ends():
    with Interrupt() as interrupt:
        assert break_off(interrupt, allowed=False) == ["begun", "ended"]
        assert interrupt.stopped
        assert break_off(interrupt, allowed=False) == ["begun", "ended"]


def test_a_second_sigterm_is_the_same_request():
    send_during_a_run(signal.SIGTERM, signal.SIGTERM)


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="an error"), Interrupt():
        raise ValueError("an error")
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone():
    """Python allows handlers in the main thread only; a run in another thread still runs."""
    seen: list[bool] = []

    def enter() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.stopped)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is before


class Stopping(Maml):
    """MAML that gets a signal in the middle of its third step."""

    def update_state(self, state: State, aux: State) -> State:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().update_state(state, aux)


calls: list[int] = []


def test_the_engine_finishes_the_step_saves_and_returns(tmp_path: Path):
    calls.clear()
    run = run_engine(tmp_path, Stopping(dense_network(), REGRESSION, inner_lr=0.01), Lines(), steps=10, save_every=100)
    assert run.position.step == 3
    assert run.saved[-1] == ("last.pt", 3)
    assert [line["step"] for line in run.lines] == [1, 2, 3]
    assert not any(name == "best.pt" for name, _ in run.saved), "an interrupt is no reason to validate"


def test_a_signal_between_two_steps_saves_too(tmp_path: Path):
    """It arrives while the schedule's own checkpoint of step 2 is written."""

    def stop(position: object, name: str) -> None:
        if getattr(position, "step", 0) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run = run_engine(tmp_path, Maml(dense_network(), REGRESSION, inner_lr=0.01), Lines(), steps=10, save_every=2, on_save=stop)
    assert run.position.step == 2
    assert run.saved[-1] == ("last.pt", 2)


class Told(OneProcess):
    """One of several processes, of which another one got SIGTERM."""

    def agree(self, number: int) -> int:
        return max(number, signal.SIGTERM)


def test_a_signal_of_another_process_stops_this_one_too() -> None:
    interrupt = Interrupt()
    assert not interrupt.reached(OneProcess())
    assert interrupt.number is None
    assert interrupt.reached(Told())
    assert interrupt.number == signal.SIGTERM


def test_a_process_keeps_its_own_signal() -> None:
    interrupt = Interrupt()
    interrupt.number = signal.SIGINT
    assert interrupt.reached(Told())
    assert interrupt.number == signal.SIGINT
