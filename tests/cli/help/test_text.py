"""Text in columns, within a width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from metarun.cli.help.text import entry, fitted, page_width, wrapped

if TYPE_CHECKING:
    from command_line import CommandLine

pytest_plugins = ("command_line",)


def test_a_row_keeps_the_column_of_its_words() -> None:
    assert fitted("usage: x\n\nOne two three\nfour.\n\n  name   a b c d\n  other  e\n", 14) == (
        "usage: x\n\nOne two three\nfour.\n\n  name   a b c\n         d\n  other  e\n"
    )


def test_a_line_with_a_deeper_indent_belongs_to_the_row_above() -> None:
    assert fitted("  name  a b\n        c\nexamples:\n  metarun list\n", 80) == "  name  a b c examples:\n  metarun list\n"
    assert fitted("  name  a\n\nexamples:\n  metarun list\n", 80) == "  name  a\n\nexamples:\n  metarun list\n"


def test_a_long_usage_goes_on_below_its_words() -> None:
    assert fitted("usage: metarun list [GROUP ...]\n", 24) == "usage: metarun list\n       [GROUP ...]\n"


def test_words_stand_beside_a_short_name_and_below_a_long_one() -> None:
    assert entry("name", "words", 80) == f"{'  name':30}words"
    assert entry("n" * 40, "words", 80) == f"  {'n' * 40}\n{'':30}words"
    assert entry("name", "", 80) == "  name"
    assert wrapped("", 10, "  ") == ""


@pytest.mark.parametrize(("columns", "width"), [("200", 120), ("100", 100), ("10", 40)])
def test_the_width_is_that_of_the_terminal_within_bounds(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert page_width() == width


def test_without_a_terminal_the_width_is_80(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert page_width() == 80


@pytest.mark.parametrize("command", ["list", "export", "compare", "report", "reproduce"])
def test_each_command_without_hydra_explains_its_words_in_80_columns(command_line: CommandLine, command: str) -> None:
    answer = command_line(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"usage: metarun {command} ")
    assert max(map(len, answer.out.splitlines())) <= 80
