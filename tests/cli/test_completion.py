"""Tab completion through the subcommand: COMP_LINE in, candidates out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli import completion
from metarun.cli.main import COMMANDS

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return a function from a line to the candidates for its last word, as the shell asks for them."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        answer = command_line("-sc", "query=bash")
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("metarun predict checkpoint=x sup", ["support="]),
        ("metarun ", ["train", "eval", "compare", "predict", "report", "export", "list", "reproduce"]),
        ("metarun tr", ["train"]),
        ("metarun compare RUN spl", ["split="]),
        ("metarun report RUN ou", ["out="]),
        ("metarun list --", ["--config-dir"]),
        ("metarun list op", ["optimizer"]),
        ("metarun list algo mam", ["maml", "mamlpp"]),
        ("metarun list task algo nea", ["nearest"]),
        ("metarun help pr", ["predict"]),
        ("metarun report sc", ["score="]),
        ("metarun train --conf", ["--config-dir", "--config-name"]),
        ("metarun train algo=prot", ["algo=protonet"]),
        ("/usr/bin/metarun train seed=1 algo=prot", ["algo=protonet"]),
        ("metarun train --multirun algo=prot", ["algo=protonet"]),
        ("metarun train task.sho", ["task.shots="]),
        ("metarun train task=table task.task_c", ["task.task_column="]),
        ("metarun eval task.shots=5 spl", ["split="]),
        ("metarun eval task=sinu", ["task=sinusoid"]),
        ("metarun reproduce quick", ["quickstart"]),
        ("metarun reproduce quickstart ch", ["checkpoint="]),
        ("metarun reproduce quickstart task.sho", ["task.shots="]),
        ("metarun reproduce --", ["--config-dir"]),
        ("metarun nonsense al", []),
        ("metarun train nonsense=1 task.sho", []),
    ],
)
def test_the_last_word_is_completed(complete: Complete, line: str, expected: list[str]) -> None:
    assert complete(line) == expected


def test_files_that_are_parts_of_others_are_no_candidates(complete: Complete) -> None:
    found = complete("metarun train task=")
    assert "task=glyphs" in found
    assert not [word for word in found if word.endswith("_")]


def test_options_of_the_users_own_folder_are_candidates(complete: Complete) -> None:
    Path("conf/algo").mkdir(parents=True)
    Path("conf/algo/mine.yaml").write_text("_target_: mine.Mine\n")
    assert complete("metarun train --config-dir conf algo=mi") == ["algo=mine"]


def test_experiments_of_the_users_own_folder_can_be_reproduced(complete: Complete) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# Mine.\n")
    assert complete("metarun reproduce --config-dir conf mi") == ["mine", "mixture_memory"]


@pytest.mark.parametrize("words", [("-sc", "install=bash"), ("train", "-sc", "install=bash")])
def test_the_installed_rule_is_for_the_word_metarun(command_line: CommandLine, words: tuple[str, ...]) -> None:
    answer = command_line(*words)
    assert answer.code == 0
    assert answer.out.rstrip().endswith("-F hydra_bash_completion metarun")


def test_completion_imports_no_torch() -> None:
    environment = {**os.environ, "COMP_LINE": "metarun train algo=prot"}
    command = [sys.executable, "-X", "importtime", "-m", "metarun", "-sc", "query=bash"]
    shell = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert shell.stdout == "algo=protonet\n"
    assert not any(line.endswith("| torch") for line in shell.stderr.splitlines())


def test_the_commands_are_those_that_there_are() -> None:
    assert set(completion.COMMANDS) == set(COMMANDS)
