"""Commands that a launcher has started N times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metarun.cli import processes
from metarun.cli.processes import run
from metarun.errors import UserError
from metarun.records.checkpoint import LAST, load


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
    assert called("train", words) == (0, [])


def test_torchrun_starts_a_training_whose_loss_is_not_finite_and_all_processes_end_with_one_sentence(tmp_path: Path) -> None:
    """With an inner rate of 1e9, the loss of the first task is infinite; the second process has another task."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    task = ["algo=maml", "task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "algo.inner_lr=1e9", "algo.inner_steps=5"]
    sizes = ["steps=3", "tasks_per_step=2", "device.task_chunk=1", "device.compile=false", "device=cpu", "logger=jsonl"]
    words = ["-m", "metarun", "train", *task, *sizes, "hydra.run.dir=run"]
    ended = subprocess.run([*launcher, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1
    assert ended.stderr.count("metarun: the loss of step 1 is not finite (training task 0") == 1
    assert ended.stderr.count("divided among 2 processes") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert load(tmp_path / "run" / "checkpoints" / LAST).step == 0
