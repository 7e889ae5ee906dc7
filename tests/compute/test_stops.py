"""Signals while torch's compiler works."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

from metarun.compute.stops import CompilingStopped, noting_stops


@pytest.fixture
def heard() -> object:
    """Replace the handler of SIGINT by one that notes its calls, as `metarun.engine.interrupt` does."""
    calls: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGINT, note)
    yield calls
    signal.signal(signal.SIGINT, before)


def test_a_signal_is_noted_and_reaches_the_handler_of_before(heard: list[int]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with noting_stops(at_once=False) as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
    assert heard == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_ends_a_compilation_at_once_where_no_step_has_begun(heard: list[int]) -> None:
    with pytest.raises(CompilingStopped), noting_stops(at_once=True):
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT]


def test_a_second_signal_has_the_handler_that_the_first_one_left(heard: list[int]) -> None:
    with noting_stops(at_once=False):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT, signal.SIGINT]
