"""The plain model of a page."""

from __future__ import annotations

from metarun.commands.reporting.page import Cell, Picture, Prose, Section, Table, code, shown


def test_a_column_with_a_number_is_one_of_numbers() -> None:
    assert Table(["a", "b"], [[Cell("x"), Cell("–")], [Cell("y"), Cell("1", 1.0)]]).aligned == [False, True]
    assert Table(["a"], [[Cell("1", 1.0)]], numeric=[False]).aligned == [False]


def test_two_pictures_of_a_section_stand_side_by_side_unless_they_are_wide() -> None:
    narrow, wide = Picture("a", "<svg></svg>"), Picture("b", "<svg></svg>", wide=True)
    assert Section("s", "S", [narrow, narrow]).pairs
    assert not Section("s", "S", [narrow, wide, Prose("text")]).pairs


def test_a_text_from_a_file_is_one_line_without_control_characters_and_backticks() -> None:
    assert shown("a\n`b`\x07") == "a\\n'b'\\x07"
    assert code("name") == "`name`"
