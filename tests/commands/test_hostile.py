"""A checkpoint from a stranger: whatever its pickle or its config names, `eval` and `resume` refuse it in a sentence and run nothing."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from metarun.cli import main as cli
from metarun.commands.evaluate import evaluate as run_evaluation
from metarun.records import checkpoint

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)

TRAIN = "train task=sinusoid backbone=mlp backbone.widths=[4] logger=jsonl steps=2 tasks_per_step=2 eval_episodes=2 hydra.run.dir=run"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, keep_logging: Callable[[], AbstractContextManager[None]]) -> checkpoint.Checkpoint:
    """A checkpoint of a run of two steps."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch, keep_logging():
        patch.chdir(folder)
        assert cli.main(TRAIN.split(" ")) == 0
    return checkpoint.load(folder / "run/checkpoints/last.pt")


@pytest.fixture
def stranger(honest: checkpoint.Checkpoint, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], None]:
    """Return a function that writes the checkpoint as best.pt and last.pt of `run`, its config changed by a function."""

    def write(change: Callable[[dict[str, Any]], None]) -> None:
        config = copy.deepcopy(honest.config)
        change(config)
        for name in ("best.pt", "last.pt"):
            checkpoint.save(tmp_path / "run/checkpoints" / name, replace(honest, config=config))

    return write


def refused(command_line: CommandLine, words: str, target: str) -> None:
    answer = command_line(*words.split(" "))
    assert answer.code == 2
    assert target in answer.err
    assert "Traceback" not in answer.err
    assert not Path("mark").exists()


@pytest.mark.parametrize("target", ["os.system", "metarun.records.checkpoint.os.mkdir", "subprocess.Popen", "somebody.elses.Algorithm"])
def test_a_config_that_names_foreign_code_is_refused(command_line: CommandLine, stranger: Callable[..., None], target: str) -> None:
    stranger(lambda config: config.update(algo={"_target_": target, "command": "touch mark", "path": "mark"}))
    refused(command_line, "eval checkpoint=run", target)


@pytest.mark.parametrize("place", ["task", "backbone", "optimizer", "logger", "adapts"])
def test_foreign_code_is_refused_wherever_the_config_names_it(command_line: CommandLine, stranger: Callable[..., None], place: str) -> None:
    node = {"_target_": "os.system", "command": "touch mark"}
    stranger(lambda config: config["algo"].update(adapts=[node]) if place == "adapts" else config.update({place: node}))
    refused(command_line, "eval checkpoint=run", "os.system")


def test_a_resumed_run_refuses_foreign_code_too(command_line: CommandLine, stranger: Callable[..., None]) -> None:
    stranger(lambda config: config.update(algo={"_target_": "os.system", "command": "touch mark"}))
    refused(command_line, "train resume=run steps=3", "os.system")


def test_a_foreign_module_is_refused_even_where_another_one_is_trusted(command_line: CommandLine, stranger: Callable[..., None]) -> None:
    stranger(lambda config: config["algo"].update(_target_="os.system"))
    answer = command_line("eval", "checkpoint=run", "trust=[mypack]")
    assert (answer.code, "os.system" in answer.err) == (2, True)


def test_an_interpolation_in_a_checkpoint_stays_text(command_line: CommandLine, stranger: Callable[..., None]) -> None:
    """`activation` must be a known word, so the refusal shows what the value was read as: the text, and not the value of HOME."""
    stranger(lambda config: config["backbone"].update(activation="${oc.env:HOME}"))
    answer = command_line("eval", "checkpoint=run")
    assert answer.code == 2
    assert "${oc.env:HOME}" in answer.err
    assert os.environ["HOME"] not in answer.err


def test_an_interpolation_reaches_the_report_as_text(tmp_path: Path, stranger: Callable[..., None]) -> None:
    stranger(lambda config: config.update(note="${oc.env:HOME}"))
    config = {"checkpoint": str(tmp_path / "run"), "split": "val", "episodes": 2, "seed": 0, "device": {"name": "cpu"}}
    summary = run_evaluation(config, tmp_path / "report")
    assert summary["config"]["note"] == "${oc.env:HOME}"


class Hostile:
    """Pickles to a call that would leave a file behind."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch mark",)


@pytest.mark.parametrize("words", ["eval checkpoint=run", "train resume=run steps=3"])
def test_a_pickle_that_would_run_code_is_refused(command_line: CommandLine, stranger: Callable[..., None], words: str) -> None:
    stranger(lambda config: None)
    for name in ("best.pt", "last.pt"):
        torch.save({"format": 1, "version": "0", "step": Hostile()}, Path("run/checkpoints") / name)
    answer = command_line(*words.split(" "))
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert not Path("mark").exists()


@pytest.mark.parametrize("damage", [b"", bytes(5000), b"PK\x03\x04 half", b"some notes\n"])
def test_a_damaged_last_checkpoint_falls_back_to_the_previous_one_and_says_so(
    command_line: CommandLine, stranger: Callable[..., None], damage: bytes
) -> None:
    stranger(lambda config: None)
    stranger(lambda config: None)  # a second save, so that there is a previous one
    last = Path("run/checkpoints/last.pt")
    last.write_bytes(damage)
    scored = command_line("eval", "checkpoint=run/checkpoints/last.pt", "episodes=2", "hydra.run.dir=scored")
    resumed = command_line("train", "resume=run", "steps=3")
    for answer in (scored, resumed):
        assert answer.code == 0
        (line,) = [line for line in answer.out.splitlines() if "previous.pt" in line and line.startswith("metarun: ")]
        assert str(last) in line
        assert "previous.pt (step 2) takes its place" in line
    assert checkpoint.load(last).step == 3
