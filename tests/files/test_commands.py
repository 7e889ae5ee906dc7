"""Printed commands go through a shell and Hydra unchanged."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from metarun.cli.arguments import split
from metarun.cli.paths import as_typed, typed_paths
from metarun.files.commands import PROGRAM, command, note_program, packages_of, program
from metarun.files.paths import shell_words, word

NAMES = (
    "runs/a b",
    "a=b",
    "it's",
    'say "x"',
    "[list]",
    "M\u00fcller/\u5199",
    "$HOME",
    "a,b",
    "~x",
    "null",
    "{c}",
    "back\\slash",
    "#1",
    "a;b",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_gives_a_shell_the_path_and_the_packages(name: str) -> None:
    printed = command("eval", word("checkpoint", name), "best=3", config={"backbone": {"_target_": "mine.Net"}})
    seen = subprocess.run(["sh", "-c", f"printf '%s\\0' {printed}"], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert seen == shlex.split(printed)
    start, name_of_command, checkpoint, *rest = seen
    assert (start, name_of_command, rest) == ("metarun", "eval", ["best=3", "trust=[mine]"])
    assert typed_paths(checkpoint.partition("=")[2]) == [f"./{name}" if name.startswith("~") else name]
    _, overrides = split([as_typed(each) for each in seen[2:]])
    parsed = OverridesParser.create().parse_overrides(overrides)
    assert {each.key_or_group: each.value() for each in parsed}["trust"] == ["mine"]


def test_packages_besides_metarun_need_trust() -> None:
    config: dict[str, Any] = {
        "algo": {"_target_": "metarun.algorithms.maml.Maml", "update": {"_target_": "rules.Own"}},
        "task": {"_target_": "metarun.tasks.mixture.mixture", "sources": {"a": {"_target_": "mine.tasks.Own"}}},
        "backbone": {"_target_": "mine.Net", "layers": [{"_target_": "torch.nn.Flatten"}]},
        "odd": {"_target_": "a b; rm", 1: None},
    }
    assert packages_of(config) == ["rules", "mine", "torch"]
    assert packages_of({"algo": {"_target_": "metarun.algorithms.maml.Maml"}}) == []


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["python", "-m", "metarun", "train"], "python -m metarun"),
        (["/no/such/bin/python9", "-P", "-m", "metarun", "train"], "/no/such/bin/python9 -P -m metarun"),
        (["/usr/bin/python", "/no/such/bin/metarun", "train"], "/no/such/bin/metarun"),
        (["/usr/bin/python", "a folder/bin/metarun", "train"], "'a folder/bin/metarun'"),
        (["python", "-m", "pytest", "metarun"], "metarun"),
        (["python", "my_script.py", "-m", "metarun"], "metarun"),
        (["python"], "metarun"),
    ],
)
def test_a_command_starts_as_the_user_started_metarun(monkeypatch: pytest.MonkeyPatch, argv: list[str], shown: str) -> None:
    monkeypatch.delenv(PROGRAM, raising=False)
    monkeypatch.setattr("shutil.which", lambda name, *_: f"/usr/bin/{name}" if name == "python" else None)
    monkeypatch.setattr(sys, "orig_argv", argv)
    assert program() == shown


def test_a_script_on_the_path_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "metarun"
    script.touch(mode=0o755)
    monkeypatch.delenv(PROGRAM, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "orig_argv", ["python", str(script), "train"])
    assert program() == "metarun"


def test_a_process_of_a_sweep_starts_commands_as_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM, "")
    monkeypatch.setattr(sys, "orig_argv", ["/no/such/bin/python9", "-m", "metarun"])
    note_program()
    assert os.environ[PROGRAM] == "/no/such/bin/python9 -m metarun"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "joblib.externals.loky"])
    assert program() == "/no/such/bin/python9 -m metarun"


def test_folders_of_the_home_keep_their_tilde_and_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nobody")
    words = shell_words(["~/a b", "c d", "it's"])
    seen = subprocess.run(["sh", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert seen == ["/nobody/a b", "c d", "it's"]


def test_several_configs_need_the_trust_of_all() -> None:
    configs = [{"algo": {"_target_": "mine.A"}}, {"backbone": {"_target_": "other.B"}}]
    assert command("compare", "runs/1", config=configs) == "metarun compare runs/1 'trust=[mine,other]'"
