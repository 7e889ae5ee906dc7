"""Processes that find each other, and end together where one fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from metarun.errors import UserError
from metarun.processes import joining
from metarun.processes.joining import cores, machines_of, run_together
from metarun.processes.launch import Place


class Others:
    """A group of which no other process is there. calls: what this process did."""

    def __init__(self, rank: int, *, earlier: bool) -> None:
        self.rank, self.size, self.first, self.earlier = rank, 2, rank == 0, earlier
        self.calls: list[str] = []

    def fails_first(self) -> bool:
        return not self.earlier

    def agree(self, number: int) -> int:
        self.calls.append("agree")
        return number

    def close(self) -> None:
        self.calls.append("close")

    def note(self, name: str) -> None:
        self.calls.append(f"note {name}")

    def await_notes(self, names: list[str], seconds: float) -> None:
        self.calls += [f"await {name}" for name in names]


@pytest.fixture(autouse=True)
def same_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ended(monkeypatch: pytest.MonkeyPatch, group: Others, error: Exception | None, *, hosted: bool = True) -> tuple[int, list[str]]:
    """Run a command that raises an error, or none, as one of two processes; return its exit code and what the process did."""

    def told(failure: BaseException) -> int:
        group.calls.append(f"tell {failure}")
        return 2

    def command() -> int:
        print("from the command")
        if error is not None:
            raise error
        return 0

    monkeypatch.setattr(joining, "connect", lambda place: group)
    return run_together(Place(group.rank, 2, group.rank, 2, "host", 1, hosted), command, told), group.calls


def test_the_first_process_to_fail_tells_the_user_after_it_has_closed_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    code, calls = ended(monkeypatch, Others(0, earlier=False), UserError("no such data."))
    assert code == 2
    assert calls == ["close", "tell no such data.", "note told", "note saved", "note ended/0"]


def test_a_process_that_serves_the_store_ends_last_so_that_the_others_learn_that_the_user_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ended(monkeypatch, Others(0, earlier=False), UserError("no such data."), hosted=False)[1]
    assert calls == ["close", "tell no such data.", "note told", "note saved", "note ended/0", "await ended/1"]
    assert ended(monkeypatch, Others(1, earlier=True), UserError("no such data."), hosted=False)[1][-2:] == ["await told", "note ended/1"]


def test_a_process_that_fails_after_another_one_is_silent_and_waits_until_the_user_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    code, calls = ended(monkeypatch, Others(1, earlier=True), UserError("no such data."))
    assert code == 1
    assert calls == ["close", "await saved", "await told", "note ended/1"]


def test_a_first_process_that_fails_later_notes_that_it_has_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ended(monkeypatch, Others(0, earlier=True), UserError("no such data."))[1]
    assert calls == ["close", "note saved", "await told", "note ended/0"]


def test_an_error_of_another_process_alone_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ended(monkeypatch, Others(1, earlier=False), ValueError("a bug"))[1]
    assert calls == ["close", "tell a bug", "note told", "await saved", "note ended/1"]


@pytest.mark.parametrize(("rank", "shown"), [(0, "from the command\n"), (1, "")])
def test_the_first_process_alone_speaks_and_all_leave_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int, shown: str
) -> None:
    assert ended(monkeypatch, Others(rank, earlier=False), None) == (0, ["agree", "close"])
    assert capsys.readouterr().out == shown


def test_the_cores_of_a_machine_are_those_that_any_of_its_processes_may_use() -> None:
    """A launcher may give each process cores of its own, or let all use the same ones."""
    facts: list[Any] = [["one", ["0", "1"], False], ["one", ["2"], False], ["two", ["0", "1"], False]]
    assert machines_of(facts, 0) == machines_of(facts, 1) == {"machines": 2, "cores": 3}
    assert machines_of(facts, 2) == {"machines": 2, "cores": 2}


def test_this_process_may_use_a_core() -> None:
    assert cores()
