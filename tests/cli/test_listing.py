"""`metarun list`: names and first sentences, read as text from the shipped files and the user's."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli.listing import GROUPS, description

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)

SHIPPED = [(group, file) for group in GROUPS for file in sorted(files("metarun.configs").joinpath(group).iterdir(), key=str)]


def test_every_group_has_its_heading(command_line: CommandLine) -> None:
    answer = command_line("list")
    assert answer.code == 0
    assert [line.rsplit(" ", 1)[1] for line in answer.out.splitlines() if line[:1].strip()] == [f"({group}=...)" for group in GROUPS]


@pytest.mark.parametrize(("group", "name"), [(group, file.name) for group, file in SHIPPED if file.name.endswith(".yaml")])
def test_every_shipped_option_is_listed_with_a_description_and_parts_are_not(command_line: CommandLine, group: str, name: str) -> None:
    option = name.removesuffix(".yaml")
    rows = dict([*line.split(), ""][:2] for line in command_line("list", group).out.splitlines()[1:])
    assert (option in rows) == (not option.endswith("_"))
    assert option.endswith("_") or rows[option]


def test_descriptions_are_aligned(command_line: CommandLine) -> None:
    rows = command_line("list", "algo").out.splitlines()[1:]
    width = max(len(row.split()[0]) for row in rows)
    assert all(row[2 + width : 4 + width] == "  " and row[4 + width] != " " for row in rows)


def test_a_users_own_options_are_listed_too(command_line: CommandLine) -> None:
    Path("conf/algo").mkdir(parents=True)
    Path("conf/algo/mine.yaml").write_text("# My own method. It is good.\n_target_: mine.Mine\n")
    Path("conf/algo/part_.yaml").write_text("# A part.\n")
    out = command_line("list", "algo", "--config-dir", "conf").out
    assert re.search(r"^  mine +My own method$", out, re.MULTILINE)
    assert "maml" in out
    assert "part_" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tasc",), "metarun list knows no 'tasc'. Did you mean 'task'?"),
        (("--config-dir", "nowhere"), "--config-dir: there is no folder 'nowhere'."),
        (("--config-dir",), "--config-dir: there is no folder ''."),
    ],
)
def test_a_wrong_word_exits_with_2(command_line: CommandLine, words: tuple[str, ...], said: str) -> None:
    answer = command_line("list", *words)
    assert answer.code == 2
    assert answer.err.splitlines()[0] == f"metarun: {said}"


def test_list_help_is_its_usage(command_line: CommandLine) -> None:
    assert command_line("list", "--help").out.startswith("usage: metarun list")


def test_a_reader_who_leaves_early_hears_nothing() -> None:
    with subprocess.Popen([sys.executable, "-m", "metarun", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        listing.stdout.close()
        assert listing.stderr is not None
        assert (listing.stderr.read(), listing.wait()) == (b"", 141), "as of a program that SIGPIPE ends"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One sentence. Another one.\nkey: 1\n", "One sentence"),
        ("# One sentence over\n# two lines. More.\nkey: 1\n", "One sentence over two lines"),
        ("# @package _global_\n# After the package line.\n", "After the package line"),
        ("#\n# After an empty comment\n#\n# Not this.\n", "After an empty comment"),
        ("# Finn et al. 2017, e.g. on glyphs (5. and 6.). `x` next.\n", "Finn et al. 2017, e.g. on glyphs (5. and 6.)"),
        ("key: 1  # no header\n# too late\n", ""),
        ("", ""),
    ],
)
def test_the_description_is_the_first_sentence_of_the_header(text: str, expected: str) -> None:
    assert description(text) == expected
