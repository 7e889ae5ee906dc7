"""Commands that a launcher has started N times."""

from __future__ import annotations

from typing import Any

import pytest

from metarun.cli import processes
from metarun.cli.processes import run
from metarun.errors import UserError


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note the places of the processes that would run together."""
    places: list[Any] = []
    monkeypatch.setattr(processes, "run_together", lambda place, command, told: places.append(place) or command())
    return places


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int | None) -> None:
    for name, value in {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.delenv(name, raising=False)
        if rank is not None:
            monkeypatch.setenv(name, value)


def called(name: str, words: list[str]) -> tuple[int, list[list[str]]]:
    """Run a command; return its exit code and the words that it got, if it ran."""
    ran: list[list[str]] = []
    code = run(name, lambda each: ran.append(each) or 7, words, lambda error: 1)
    return code, ran


def test_a_command_without_a_launcher_runs_as_ever(monkeypatch: pytest.MonkeyPatch, together: list[Any]) -> None:
    as_rank(monkeypatch, None)
    assert called("train", ["-m", "seed=0,1"]) == (7, [["-m", "seed=0,1"]])
    assert not together


@pytest.mark.parametrize("name", ["train", "eval", "reproduce"])
def test_the_processes_divide_a_training_an_evaluation_and_a_reproduction(
    monkeypatch: pytest.MonkeyPatch, together: list[Any], name: str
) -> None:
    as_rank(monkeypatch, 1)
    assert called(name, ["algo=maml"]) == (7, [["algo=maml"]])
    assert [(place.rank, place.size) for place in together] == [(1, 2)]


@pytest.mark.parametrize(("name", "words"), [("predict", []), ("export", []), ("list", []), ("train", ["--help"]), ("eval", ["--cfg=job"])])
def test_the_first_process_alone_runs_what_cannot_be_divided(
    monkeypatch: pytest.MonkeyPatch, together: list[Any], name: str, words: list[str]
) -> None:
    as_rank(monkeypatch, 0)
    assert called(name, words) == (7, [words])
    as_rank(monkeypatch, 1)
    assert called(name, words) == (0, [])
    assert not together


@pytest.mark.parametrize("words", [["-m", "seed=0,1"], ["seed=0,1", "--multirun"], ["hydra.mode=MULTIRUN"]], ids=str)
def test_a_sweep_in_several_processes_is_refused_once(monkeypatch: pytest.MonkeyPatch, together: list[Any], words: list[str]) -> None:
    as_rank(monkeypatch, 0)
    with pytest.raises(UserError, match="a sweep runs many trainings, and 2 processes divide one"):
        called("train", words)
    as_rank(monkeypatch, 1)
    assert called("train", words) == (2, [])
