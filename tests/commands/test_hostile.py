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
from small import composed

from metarun.cli import main as cli
from metarun.commands.evaluate import evaluate as run_evaluation
from metarun.commands.train import train
from metarun.errors import UserError
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


def score(folder: Path, **asked: Any) -> None:
    """Do what `metarun eval checkpoint=run` does, without Hydra."""
    config = {"checkpoint": str(folder / "run"), "split": "val", "episodes": 2, "seed": 0, "device": {"name": "cpu"}}
    run_evaluation({**config, **asked}, folder / "scored")


def go_on(folder: Path) -> None:
    """Do what `metarun train resume=run steps=3` does, without Hydra."""
    train({"resume": str(folder / "run"), "overrides": {"steps": 3}, "groups": {}}, folder / "run")


def start_from(folder: Path) -> None:
    """Do what `metarun train init_from=run` does, without Hydra."""
    config = composed("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "logger=jsonl", "steps=1", "eval_episodes=2")
    train({**config, "init_from": str(folder / "run")}, folder / "new")


COMMANDS = {"eval": score, "resume": go_on}


def sentence(command: Callable[[Path], None], folder: Path) -> str:
    """Return the sentence with which a command refuses the run."""
    with pytest.raises(UserError) as caught:
        command(folder)
    text = str(caught.value)
    assert text.isprintable()
    return text


WRITER = {"_target_": "metarun.records.tracking.Tracker", "folder": "victim", "tensorboard": False, "resume_step": 0}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "place", ["algo.adapts", "algo.inner_lr", "backbone", "backbone.widths", "task.shots", "optimizer.options", "notes"]
)
def test_a_tracker_elsewhere_than_in_the_logger_writes_nothing(
    stranger: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("victim").mkdir()
    Path("victim/metrics.jsonl").write_text('{"step": 5}\n')
    group, _, key = place.partition(".")
    stranger(lambda config: config[group].update({key: WRITER}) if key else config.update({group: WRITER}))
    text = sentence(COMMANDS[command], tmp_path)
    assert f"'{WRITER['_target_']}' in {place}, which is no place for it; nothing was run" in text
    assert Path("victim/metrics.jsonl").read_text() == '{"step": 5}\n'
    assert [path.name for path in Path("victim").iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("key", ["folder", "resume_step"])
def test_a_logger_may_not_name_the_folder_into_which_it_writes(
    stranger: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    stranger(lambda config: config["logger"].update({key: WRITER[key]}))
    assert f"sets logger.{key}, which a checkpoint may not set" in sentence(go_on, tmp_path)
    assert not Path("victim").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "best"])
@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("task"),
        lambda config: config.pop("seed"),
        lambda config: config.pop("steps"),
        lambda config: config.pop("device"),
        lambda config: config.pop("logger"),
        lambda config: config.update(algo=["x"]),
        lambda config: config.update(backbone="mlp"),
        lambda config: config.update(options=3),
        lambda config: config.update(keep="x"),
        lambda config: config.update(seed="x"),
        lambda config: config.update(hydra={"run": {"dir": "victim"}}),
        lambda config: config["task"].pop("_target_"),
        lambda config: config["algo"].update({3: 4}),
        lambda config: config.clear(),
    ],
)
def test_a_config_that_no_run_has_is_one_sentence(
    stranger: Callable[..., None], tmp_path: Path, command: str, change: Callable[[dict[str, Any]], None]
) -> None:
    stranger(change)
    assert sentence(COMMANDS.get(command, lambda folder: score(folder, best=2)), tmp_path)


def test_escape_sequences_in_a_checkpoint_do_not_reach_the_terminal(command_line: CommandLine, stranger: Callable[..., None]) -> None:
    """The choice of a group is printed beside the score, and an odd value in an error."""
    codes = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\n"
    stranger(lambda config: config["options"].update(task=codes))
    scored = command_line("eval", "checkpoint=run", "task=line", "task.shots=4", "episodes=2", "hydra.run.dir=scored")
    assert (scored.code, "\\x1b[2J" in scored.out) == (0, True)
    stranger(lambda config: config["algo"].update({codes: codes}))
    refused = command_line("eval", "checkpoint=run", "hydra.run.dir=scored2")
    assert (refused.code, "\\x1b[2J" in refused.err) == (2, True)
    for text in (scored.out, scored.err, refused.out, refused.err):
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def first_moment(stored: checkpoint.Checkpoint) -> dict[str, torch.Tensor]:
    return stored.optimizer["state"][0]  # type: ignore[no-any-return]


TENSORS: dict[str, Callable[[checkpoint.Checkpoint], object]] = {
    "a moment of one number": lambda stored: first_moment(stored).update(exp_avg=torch.zeros(1)),
    "moments of whole numbers": lambda stored: first_moment(stored).update(exp_avg_sq=first_moment(stored)["exp_avg_sq"].long()),
    "a step below zero": lambda stored: first_moment(stored).update(step=torch.tensor(-1.0)),
    "no moment": lambda stored: first_moment(stored).pop("exp_avg"),
    "two groups": lambda stored: stored.optimizer["param_groups"].append({}),
    "a parameter too few": lambda stored: stored.params.pop("head.bias"),
    "a parameter too many": lambda stored: stored.params.update(more=torch.zeros(2)),
    "a parameter of another shape": lambda stored: stored.params.update({"head.bias": torch.zeros(5)}),
    "a parameter of another type": lambda stored: stored.params.update({"head.bias": torch.zeros(1, dtype=torch.float64)}),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_do_not_fit_reach_no_kernel(honest: checkpoint.Checkpoint, tmp_path: Path, kind: str) -> None:
    stored = copy.deepcopy(honest)
    TENSORS[kind](stored)
    checkpoint.save(tmp_path / "run/checkpoints/last.pt", stored)
    assert "take another checkpoint" in sentence(go_on, tmp_path)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *((score, kind) for kind in ("a parameter too few", "a parameter of another shape", "a parameter of another type")),
        *((start_from, kind) for kind in ("a parameter of another shape", "a parameter of another type")),
    ],
)
def test_parameters_that_do_not_fit_are_neither_scored_nor_a_start(
    honest: checkpoint.Checkpoint, tmp_path: Path, command: Callable[[Path], None], kind: str
) -> None:
    stored = copy.deepcopy(honest)
    TENSORS[kind](stored)
    checkpoint.save(tmp_path / "run/checkpoints/best.pt", stored)
    assert "'head.bias'" in sentence(command, tmp_path)


def test_members_of_an_ensemble_are_each_checked(honest: checkpoint.Checkpoint, tmp_path: Path) -> None:
    other = copy.deepcopy(honest)
    other.params["body.layers.0.bias"] = torch.zeros(9)
    for name, stored in (("one", honest), ("two", other)):
        checkpoint.save(tmp_path / name / "checkpoints/best.pt", stored)
    both = [str(tmp_path / name) for name in ("one", "two")]
    assert "'body.layers.0.bias' has shape (9,)" in sentence(lambda folder: score(folder, checkpoint=both), tmp_path)
