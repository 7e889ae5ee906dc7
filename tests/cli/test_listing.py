"""`metarun list`: names and first sentences, read as text from the shipped files and the user's."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarun.cli.listing import GROUPS, asked, parse, section
from metarun.errors import UserError
from metarun.wiring.option_files import shipped

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)

ROOTS = [shipped()]
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


def test_a_long_description_goes_on_in_its_column_on_a_terminal() -> None:
    rows = {"maml": "MAML: an initialisation", "protonet": ""}
    assert section("algo", rows, 30).splitlines()[1:] == ["  maml      MAML: an", " " * 12 + "initialisation", "  protonet"]
    assert section("algo", rows).splitlines()[1:] == ["  maml      MAML: an initialisation", "  protonet"]


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
    ("words", "group", "name"),
    [
        (["algo", "maml"], "algo", "maml"),
        (["algo=maml"], "algo", "maml"),
        (["protonet"], "algo", "protonet"),
        (["task", "folder"], "task", "folder"),
        (["task/source", "folder"], "task/source", "folder"),
        (["smoke"], "experiment", "smoke"),
        (["algo"], "algo", None),
    ],
)
def test_a_word_after_a_group_is_an_option_of_the_group(words: list[str], group: str, name: str | None) -> None:
    assert asked(parse(words)[0], ROOTS) == [(group, name)]


def test_several_groups_and_options_come_in_their_order() -> None:
    assert asked(["task", "algo", "maml", "anil", "backbone"], ROOTS) == [
        ("task", None),
        ("algo", "maml"),
        ("algo", "anil"),
        ("backbone", None),
    ]
    assert asked([], ROOTS) == [(group, None) for group in GROUPS]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo", "mamll"], "algo has no option 'mamll'. Did you mean 'maml'?"),
        (["prototypical"], "metarun list knows no 'prototypical'. Did you mean 'protonet'?"),
        (
            ["metasgd"],
            "'metasgd' is an option of algo and algo/update; write `metarun list algo metasgd` or `metarun list algo/update metasgd`.",
        ),
        (["xyzzy"], "metarun list knows no 'xyzzy'."),
    ],
)
def test_an_unknown_or_ambiguous_option_is_refused_with_the_nearest(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        asked(words, ROOTS)
    assert str(refused.value).splitlines()[0] == said
