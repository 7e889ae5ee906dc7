"""`metarun train --help` as text: complete, in columns, and within its width."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli.help.explained import Key, Section, composed, sections
from metarun.cli.help.page import asked_for_help, block, page, row, shown

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)


def test_the_help_of_a_choice_names_each_key_in_at_most_80_columns(command_line: CommandLine) -> None:
    answer = command_line("train", "--help", "algo=maml", "task=folder")
    keys = [key for section in sections(composed("train", ["algo=maml", "task=folder"])).values() for key in section.keys]
    assert answer.code == 0
    assert all(f"\n  {key.name}=" in answer.out for key in keys)
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "\x1b" not in answer.out
    places = [answer.out.index(f"\n{title}") for title in ("algo=maml", "task=folder", "keys of metarun train", "backbone=conv4")]
    assert places == sorted(places), "the groups that the user chose come first"
    assert not Path("outputs").exists()


@pytest.mark.parametrize("words", [("eval", "-h"), ("predict", "-h"), ("eval", "task=sinusoid", "--help", "task.shots=3")])
def test_the_other_commands_explain_their_keys_too(command_line: CommandLine, words: tuple[str, ...]) -> None:
    answer = command_line(*words)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"usage: metarun {words[0]} checkpoint=RUN")
    assert "checkpoint=???" in answer.out
    assert "[must be given]" in answer.out


def test_hydras_own_help_stays_within_reach(command_line: CommandLine) -> None:
    assert "--shell-completion" in command_line("train", "--hydra-help").out


def test_a_help_imports_no_torch() -> None:
    program = (
        "import sys\nfrom metarun.cli.main import main\ncode = main(['train', '-h', 'algo=protonet'])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_the_page_grows_with_the_terminal() -> None:
    found = composed("predict", [])
    narrow, wide = page("predict", found, 60), page("predict", found, 120)
    assert max(map(len, narrow.splitlines())) <= 60 < max(map(len, wide.splitlines())) <= 120
    assert narrow.split() != []
    assert len(narrow.splitlines()) > len(wide.splitlines())


def test_a_long_key_stands_above_its_explanation_and_a_longer_one_is_cut() -> None:
    assert row(Key("a", 1, "", "one"), 60) == f"  {'a=1':28}one"
    assert row(Key("a" * 30, 1, "", "one"), 60) == f"  {'a' * 30}=1\n{'':30}one"
    assert row(Key("a", "x" * 80, "from b", ""), 40).splitlines()[0] == f"  a={'x' * 35}…"
    assert row(Key("a", 1, "from b", "one"), 60).endswith("one [from b]")
    assert row(Key("a", 1, "", ""), 60) == "  a=1"


def test_a_section_without_keys_says_so() -> None:
    assert block(Section("algo=x", "", "An x.", []), 80) == "algo=x\n  An x.\n  No keys of its own."


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (0.001, "0.001"), ([1, 2], "[1, 2]"), (["*"], "['*']"), ("auto", "auto"), ({}, "{}")],
)
def test_a_value_is_shown_as_yaml(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("words", "asked"), [(["-h"], True), (["algo=maml", "--help"], True), (["--hydra-help"], False), (["a=-h"], False)]
)
def test_help_may_stand_anywhere(words: list[str], asked: bool) -> None:
    assert asked_for_help(words) == asked
