"""The command line: which function gets which config and folder, what is printed, and the exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import metarun
from metarun.files.lock import FolderLock

if TYPE_CHECKING:
    from command_line import Calls, CommandLine

pytest_plugins = ("command_line",)

GROUPS = {"algo", "task", "backbone", "device", "optimizer", "logger", "experiment"}


def imported_by(*words: str) -> set[str]:
    """Return the top-level packages that `metarun WORDS` imports."""
    shell = subprocess.run([sys.executable, "-X", "importtime", "-m", "metarun", *words], capture_output=True, text=True, check=True)
    return {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in shell.stderr.splitlines() if line.startswith("import time:")}


# Words


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_names_every_command(command_line: CommandLine, words: tuple[str, ...]) -> None:
    answer = command_line(*words)
    assert answer.code == 0
    assert all(
        f"\n  {command} " in answer.out for command in ("train", "eval", "compare", "predict", "report", "export", "list", "reproduce")
    )


def test_version_is_the_package_version(command_line: CommandLine) -> None:
    assert command_line("--version").out == f"metarun {metarun.__version__}\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trian", "there is no command 'trian'. Did you mean 'train'?"),
        ("--hepl", "there is no option '--hepl'. Did you mean '--help'?"),
        ("algo=maml", "'algo=maml' needs a command before it; write: metarun train algo=maml"),
    ],
)
def test_an_unknown_word_gets_a_sentence_and_the_usage(command_line: CommandLine, word: str, said: str) -> None:
    answer = command_line(word)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines()[0] == f"metarun: {said}"
    assert answer.err.splitlines()[1].startswith("usage: metarun {train,eval,compare,predict,report,export,list,reproduce}")


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list",)])
def test_words_that_only_tell_import_neither_torch_nor_hydra(words: tuple[str, ...]) -> None:
    assert not imported_by(*words) & {"torch", "hydra", "omegaconf", "numpy"}


def test_showing_the_config_imports_no_torch() -> None:
    assert "torch" not in imported_by("train", "--cfg", "job")


# What a training job receives


def test_train_receives_the_resolved_config_and_its_folder(command_line: CommandLine, calls: Calls) -> None:
    assert command_line("train", "task.shots=5", "seed=3").code == 0
    [(config, folder)] = calls.train
    assert config["task"]["shots"] == 5
    assert config["task"]["seed"] == config["seed"] == 3
    assert config["steps"] == config["algo"]["recipe"]["steps"] == 1000
    assert config["resume"] is None
    assert config["trust"] == []
    assert config["options"].keys() == GROUPS
    assert config["options"]["algo"] == "maml"
    assert config["options"]["experiment"] is None
    assert re.fullmatch(r"outputs/glyphs-maml/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.relative_to(Path.cwd()).as_posix())
    assert (folder / ".hydra/overrides.yaml").read_text() == "- task.shots=5\n- seed=3\n"


def test_an_algorithms_recipe_sets_steps_and_tasks_and_an_override_beats_it(command_line: CommandLine, calls: Calls) -> None:
    folder = Path("conf/algo")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: mine.Mine\nrecipe: {steps: 7, tasks_per_step: 3}\n")
    assert command_line("train", "--config-dir", "conf", "algo=mine", "tasks_per_step=4").code == 0
    assert (calls.train[0][0]["steps"], calls.train[0][0]["tasks_per_step"]) == (7, 4)


def test_an_algorithm_may_bring_its_optimizer_and_the_user_may_choose_another(command_line: CommandLine, calls: Calls) -> None:
    folder = Path("conf/algo")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults:\n  - override /optimizer@_global_.optimizer: sgd\n_target_: mine.Mine\n")
    command_line("train", "--config-dir", "conf", "algo=mine")
    command_line("train", "--config-dir", "conf", "algo=mine", "optimizer=adam")
    assert [config["optimizer"]["name"] for config, _ in calls.train] == ["SGD", "Adam"]


def test_flags_may_stand_among_the_overrides(command_line: CommandLine, calls: Calls) -> None:
    Path("conf").mkdir()
    assert command_line("train", "seed=1", "--config-dir", "conf", "steps=5").code == 0
    assert (calls.train[0][0]["seed"], calls.train[0][0]["steps"]) == (1, 5)


def test_code_in_the_working_directory_does_not_run(command_line: CommandLine, calls: Calls) -> None:
    """Neither a plugin of Hydra's nor a module with the name of a library that is imported late."""
    for name in ("hydra_plugins/mine.py", "hydra_plugins/mine/__init__.py", "triton.py", "colorama.py", "metarun_mine.py"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"open({str(Path('ran').absolute())!r}, 'w')\n")
    assert command_line("eval", "checkpoint=x").code == 0
    assert command_line("train").code == 0
    assert not Path("ran").exists()
    assert os.getcwd() not in sys.path


# Sweeps


def test_a_sweep_of_two_by_two_leaves_four_named_folders(command_line: CommandLine, calls: Calls) -> None:
    assert command_line("train", "-m", "algo=maml,protonet", "steps=9", "seed=range(0,2)").code == 0
    names = ["0_algo-maml_seed-0", "1_algo-maml_seed-1", "2_algo-protonet_seed-0", "3_algo-protonet_seed-1"]
    assert [folder.name for _, folder in calls.train] == names
    [sweep] = Path("outputs/multirun").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == [*names, "multirun.yaml"]


# Folders that a job must leave alone


def test_a_run_is_not_overwritten_and_neither_are_hydras_files_of_it(command_line: CommandLine, calls: Calls, old_run: Path) -> None:
    for command in ("train", "eval"):
        answer = command_line(command, f"hydra.run.dir={old_run}", *(["checkpoint=x"] if command == "eval" else []))
        assert answer.code == 2
        assert "holds the checkpoints of another run" in answer.err
    assert (old_run / ".hydra/config.yaml").read_text() == "old"
    assert [file.name for file in (old_run / ".hydra").iterdir()] == ["config.yaml"]
    assert calls.train == calls.evaluate == []


@pytest.mark.parametrize("name", ["metarun.log", ".hydra/overrides.yaml", ".hydra"])
def test_hydra_writes_through_no_planted_link(command_line: CommandLine, calls: Calls, tmp_path: Path, name: str) -> None:
    (tmp_path / "diary").write_text("mine")
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "diary")
    answer = command_line("train", "hydra.run.dir=run")
    assert answer.code == 2
    assert f"{name} is a link" in answer.err
    assert (tmp_path / "diary").read_text() == "mine"


def test_a_second_command_in_one_folder_is_refused_before_hydra_writes(command_line: CommandLine, calls: Calls, tmp_path: Path) -> None:
    with FolderLock(tmp_path / "run"):
        answer = command_line("train", "hydra.run.dir=run")
        assert answer.code == 2
        assert "another metarun writes into run (process" in answer.err
        assert [file.name for file in (tmp_path / "run").iterdir()] == [".metarun.lock"]
    assert command_line("train", "hydra.run.dir=run").code == 0


# Resume


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run folder as an earlier process left it, with letters in its name that mean something to Hydra."""
    run = tmp_path / "outputs" / "a=b, it's (2)"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/config.yaml").write_text("old")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.pt").touch()
    return run


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/last.pt"])
def test_resume_runs_in_the_old_folder_and_changes_nothing_of_hydras_there(
    command_line: CommandLine, calls: Calls, old_run: Path, inside: str
) -> None:
    path = os.path.join(*filter(None, ["outputs", old_run.name, inside]))
    assert command_line("train", f"resume={path}").code == 0
    assert calls.train == [({"resume": path, "overrides": {}, "groups": {}}, old_run)]
    assert [file.name for file in (old_run / ".hydra").iterdir()] == ["config.yaml"]
    assert (old_run / ".hydra/config.yaml").read_text() == "old"
    assert list(Path("outputs").iterdir()) == [Path("outputs") / old_run.name]


def test_resume_passes_on_what_was_typed(command_line: CommandLine, calls: Calls, old_run: Path) -> None:
    typed = ["steps=4000", "algo.unheard=[1, 2]", "device=cpu", "device.threads=2", "task.name='a b'"]
    assert command_line("train", f"resume={old_run}", *typed).code == 0
    config = calls.train[0][0]
    assert config["overrides"] == {"steps": 4000, "algo.unheard": [1, 2], "device": "cpu", "device.threads": 2, "task.name": "a b"}
    assert config["groups"] == {
        "device": {"name": "cpu", "task_chunk": "auto", "threads": 2, "compile": "auto", "precision": "float32", "kernels": "auto"}
    }


# What an evaluation receives


def test_eval_receives_only_what_differs_from_the_checkpoint(command_line: CommandLine, calls: Calls) -> None:
    assert command_line("eval", "checkpoint=some/run", "task.shots=5", "algo.inner_steps=3").code == 0
    [(config, folder)] = calls.evaluate
    assert (config["task"], config["algo"], config["backbone"]) == ({"shots": 5}, {"inner_steps": 3}, {})
    assert config["options"] == {"algo": None, "task": None, "backbone": None, "device": "auto"}
    assert (config["split"], config["episodes"], config["seed"]) == ("test", 600, 0)
    assert config["inner_steps"] is config["norm"] is config["save"] is None
    assert "optimizer" not in config
    assert folder.parent == Path.cwd() / "outputs/eval"


def test_predict_receives_its_keys_with_paths_as_they_were_typed(command_line: CommandLine, calls: Calls) -> None:
    words = ["checkpoint=some/run", "support=my photos, (1)", "query=new=ones.csv", "out=a:b.csv", "abstain=0.05", "device.threads=1"]
    assert command_line("predict", *words).code == 0
    [(config, folder)] = calls.predict
    named = {key: config[key] for key in ("checkpoint", "support", "query", "out", "abstain", "trust")}
    assert named == {
        "checkpoint": "some/run",
        "support": "my photos, (1)",
        "query": "new=ones.csv",
        "out": "a:b.csv",
        "abstain": 0.05,
        "trust": [],
    }
    assert config["device"]["threads"] == 1
    assert folder.parent == Path.cwd() / "outputs/predict"


def test_eval_receives_a_chosen_group_complete(command_line: CommandLine, calls: Calls) -> None:
    assert command_line("eval", "checkpoint=some/run", "task=sinusoid", "task.shots=5").code == 0
    config = calls.evaluate[0][0]
    assert config["options"]["task"] == "sinusoid"
    assert config["task"]["shots"] == 5
    assert "_target_" in config["task"]


def test_eval_takes_a_path_that_hydra_would_not_read(command_line: CommandLine, calls: Calls) -> None:
    path = "outputs/lr=0.1, it's (2)/{a}"
    assert command_line("eval", f"checkpoint={path}").code == 0
    assert calls.evaluate[0][0]["checkpoint"] == path


def test_eval_sweeps_over_keys_of_the_checkpoint(command_line: CommandLine, calls: Calls) -> None:
    assert command_line("eval", "-m", "checkpoint=some/run", "task.shots=1,5").code == 0
    assert [config["task"] for config, _ in calls.evaluate] == [{"shots": 1}, {"shots": 5}]
