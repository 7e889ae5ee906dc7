"""Config files that cannot be read: the sentence names the file and the fault."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli.config_files import fault_in_files, fault_of

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)

FAULTS = {
    "latin": (b"_target_: x.Y\nlr: 1 # \xe9t\xe9\n", "is not UTF-8 (line 2)"),
    "listed": (b"- a\n- b\n", "holds a list"),
    "number": (b"5\n", "holds a single value"),
    "text": (b"abc\n", "holds a single value"),
    "unclosed": (b"a: [1\n", "is not YAML"),
    "binary": (b"a: \x00\n", "is not YAML"),
    "anchor": (b"a: &a [*a]\n", "refers to itself"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_no_mapping_in_utf_8_is_told(tmp_path: Path, name: str) -> None:
    content, words = FAULTS[name]
    (tmp_path / "mine.yaml").write_bytes(content)
    assert words in str(fault_of(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("content", [b"", b"# a comment\n", b"a: 1\n", b"\xef\xbb\xbfa: 1\n", b"a: &x [1]\nb: *x\n"])
def test_a_file_without_keys_or_with_a_mark_of_its_byte_order_has_no_fault(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert fault_of(tmp_path / "mine.yaml") is None


def test_the_chosen_option_is_named_before_other_files(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    for name in ("aaa", "mine"):
        (tmp_path / f"algo/{name}.yaml").write_bytes(b"- a\n")
    assert "mine.yaml holds a list" in str(fault_in_files(["--config-dir", str(tmp_path), "algo=mine"]))
    assert "aaa.yaml holds a list" in str(fault_in_files([f"--config-dir={tmp_path}"]))
    assert fault_in_files(["algo=mine"]) is None


CIRCLES = {
    "itself": ("_target_: metarun.algorithms.maml.Maml\ninner_lr: ${algo.inner_lr}\n", "algo.inner_lr refers to itself"),
    "two": ("_target_: x.Y\na: ${algo.b}\nb: ${algo.a}\n", "refers to itself"),
    "whole": ("_target_: x.Y\na: ${algo}\n", "refers to itself"),
    "defaults": ("defaults:\n  - defaults\n  - _self_\n_target_: x.Y\n", "in a circle"),
    "variable": ("_target_: x.Y\na: ${oc.env:NO_SUCH_VARIABLE}\n", "the environment variable NO_SUCH_VARIABLE, which is not set"),
    "function": ("_target_: x.Y\na: ${nope:1}\n", "a function 'nope', which does not exist"),
    "open": ("_target_: x.Y\na: ${algo.\n", "cannot be read; close each bracket"),
    "absent": ("_target_: x.Y\na: ${algo.nothing}\n", "refers to 'algo.nothing', which does not exist"),
    "empty": ("", "algo has no _target_"),
}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_reference_that_leads_nowhere_is_one_sentence_without_words_of_the_libraries(
    command_line: CommandLine, tmp_path: Path, name: str
) -> None:
    content, words = CIRCLES[name]
    (tmp_path / "conf/algo").mkdir(parents=True)
    (tmp_path / f"conf/algo/{name}.yaml").write_text(content)
    answer = command_line("train", "--config-dir", "conf", f"algo={name}", "task=sinusoid", "backbone=mlp")
    assert (answer.code, "Traceback" in answer.err) == (2, False)
    assert words in answer.err
    assert not any(word in answer.err.lower() for word in ("interpolation", "omegaconf", "dictconfig", "full_key", "hydra"))


@pytest.mark.parametrize("name", ["latin", "listed", "number", "anchor"])
def test_the_command_names_the_file_and_its_fault(command_line: CommandLine, tmp_path: Path, name: str) -> None:
    content, words = FAULTS[name]
    (tmp_path / "conf/algo").mkdir(parents=True)
    (tmp_path / f"conf/algo/{name}.yaml").write_bytes(content)
    answer = command_line("train", "--config-dir", "conf", f"algo={name}", "task=sinusoid", "backbone=mlp")
    assert (answer.code, "Traceback" in answer.err) == (2, False)
    assert f"{name}.yaml {words}" in answer.err
